/* IUnknown and COM itself -- unknwn.h, combaseapi.h, oleauto.h; Windows SDK 10.0.22621. */
interface IUnknown {
    HRESULT QueryInterface(const GUID *, void **);
    ULONG AddRef();
    ULONG Release();
};

library ole32 {
    HRESULT CoInitializeEx(void *, DWORD);
    void CoUninitialize();
    HRESULT CoInitializeSecurity(void *, LONG, void *, void *, DWORD, DWORD, void *, DWORD, void *);
    HRESULT CoCreateInstance(const GUID *, IUnknown *, DWORD, const GUID *, void **);
    void CoTaskMemFree(void *);
};

library oleaut32 {
    BSTR SysAllocStringLen(const WCHAR *, UINT);
    void SysFreeString(BSTR);
    UINT SysStringLen(BSTR);
};
