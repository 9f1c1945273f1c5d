/* The event log -- winevt.h; Windows SDK 10.0.22621.  EVT_HANDLE is a HANDLE that EvtClose closes. */
library wevtapi {
    HANDLE EvtQuery(HANDLE, LPCWSTR, LPCWSTR, DWORD);
    BOOL EvtNext(HANDLE, DWORD, HANDLE *, DWORD, DWORD, DWORD *);
    BOOL EvtRender(HANDLE, HANDLE, DWORD, DWORD, void *, DWORD *, DWORD *);
    BOOL EvtClose(HANDLE);
};
