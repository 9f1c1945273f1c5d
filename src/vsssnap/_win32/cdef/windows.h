/* Types -- basetsd.h, guiddef.h, minwindef.h, minwinbase.h, winnt.h, wtypes.h;
 * Windows SDK 10.0.22621.
 *
 * LLP64 widths are spelt out, so that sizes and vtable slots can be checked on any 64-bit
 * host: LONG is int32_t, WCHAR is char16_t, HRESULT is int32_t, enumerations are int32_t.
 *
 * These files are C but for two forms that build_ffi expands: "interface NAME : BASE { ... };"
 * lists the slots that NAME adds behind those of BASE, in header order and without `this`;
 * "library NAME { ... };" lists functions that NAME.dll exports. */
typedef uint8_t BYTE;
typedef uint8_t BOOLEAN;
typedef uint16_t WORD;
typedef int32_t BOOL;
typedef int32_t INT;
typedef uint32_t UINT;
typedef int32_t LONG;
typedef uint32_t ULONG;
typedef uint32_t DWORD;
typedef int64_t LONGLONG;
typedef uint64_t ULONGLONG;
typedef uintptr_t ULONG_PTR;
typedef int32_t HRESULT;
typedef char16_t WCHAR;
typedef const WCHAR *LPCWSTR;
typedef WCHAR *LPWSTR;
typedef WCHAR *BSTR; /* counted; SysFreeString */
typedef void *HANDLE;

typedef struct {
    uint32_t Data1;
    uint16_t Data2;
    uint16_t Data3;
    uint8_t Data4[8];
} GUID;
typedef GUID IID;
typedef GUID CLSID;

typedef struct {
    DWORD dwLowDateTime;
    DWORD dwHighDateTime;
} FILETIME;

typedef struct {
    DWORD LowPart;
    LONG HighPart;
} LUID;

typedef struct {
    ULONG_PTR Internal;
    ULONG_PTR InternalHigh;
    DWORD Offset;
    DWORD OffsetHigh;
    HANDLE hEvent;
} OVERLAPPED;

typedef struct {
    DWORD dwFileAttributes;
    FILETIME ftCreationTime;
    FILETIME ftLastAccessTime;
    FILETIME ftLastWriteTime;
    DWORD nFileSizeHigh;
    DWORD nFileSizeLow;
    DWORD dwReserved0;
    DWORD dwReserved1;
    WCHAR cFileName[260];
    WCHAR cAlternateFileName[14];
} WIN32_FIND_DATAW;

typedef struct {
    DWORD dwFileAttributes;
    FILETIME ftCreationTime;
    FILETIME ftLastAccessTime;
    FILETIME ftLastWriteTime;
    DWORD dwVolumeSerialNumber;
    DWORD nFileSizeHigh;
    DWORD nFileSizeLow;
    DWORD nNumberOfLinks;
    DWORD nFileIndexHigh;
    DWORD nFileIndexLow;
} BY_HANDLE_FILE_INFORMATION;

library kernel32 {
    /* errhandlingapi.h: GetLastError is ffi.getwinerror() */
    BOOL SetThreadErrorMode(DWORD, DWORD *);
    /* handleapi.h, processthreadsapi.h, wow64apiset.h */
    BOOL CloseHandle(HANDLE);
    HANDLE GetCurrentProcess();
    BOOL IsWow64Process(HANDLE, BOOL *);
    HANDLE OpenThread(DWORD, BOOL, DWORD);
    /* synchapi.h */
    HANDLE CreateEventW(void *, BOOL, BOOL, LPCWSTR);
    DWORD WaitForSingleObject(HANDLE, DWORD);
    /* fileapi.h, ioapiset.h */
    HANDLE CreateFileW(LPCWSTR, DWORD, DWORD, void *, DWORD, DWORD, HANDLE);
    BOOL ReadFile(HANDLE, void *, DWORD, DWORD *, OVERLAPPED *);
    BOOL WriteFile(HANDLE, const void *, DWORD, DWORD *, OVERLAPPED *);
    BOOL FlushFileBuffers(HANDLE);
    BOOL DeviceIoControl(HANDLE, DWORD, void *, DWORD, void *, DWORD, DWORD *, OVERLAPPED *);
    BOOL GetOverlappedResult(HANDLE, OVERLAPPED *, DWORD *, BOOL);
    BOOL CancelIoEx(HANDLE, OVERLAPPED *);
    BOOL CancelSynchronousIo(HANDLE);
    DWORD GetFullPathNameW(LPCWSTR, DWORD, LPWSTR, LPWSTR *);
    BOOL GetVolumeNameForVolumeMountPointW(LPCWSTR, LPWSTR, DWORD);
    BOOL GetVolumePathNamesForVolumeNameW(LPCWSTR, LPWSTR, DWORD, DWORD *);
    BOOL GetVolumeInformationW(LPCWSTR, LPWSTR, DWORD, DWORD *, DWORD *, DWORD *, LPWSTR, DWORD);
    HANDLE FindFirstFileW(LPCWSTR, WIN32_FIND_DATAW *);
    BOOL FindNextFileW(HANDLE, WIN32_FIND_DATAW *);
    BOOL FindClose(HANDLE);
    BOOL GetFileInformationByHandle(HANDLE, BY_HANDLE_FILE_INFORMATION *);
    HANDLE FindFirstVolumeW(LPWSTR, DWORD);
    BOOL FindNextVolumeW(HANDLE, LPWSTR, DWORD);
    BOOL FindVolumeClose(HANDLE);
    UINT GetDriveTypeW(LPCWSTR);
    BOOL GetDiskFreeSpaceW(LPCWSTR, DWORD *, DWORD *, DWORD *, DWORD *);
    BOOL GetVolumePathNameW(LPCWSTR, LPWSTR, DWORD);
    /* processenv.h */
    DWORD ExpandEnvironmentStringsW(LPCWSTR, LPWSTR, DWORD);
    /* memoryapi.h */
    void *VirtualAlloc(void *, size_t, DWORD, DWORD);
    BOOL VirtualFree(void *, size_t, DWORD);
};
