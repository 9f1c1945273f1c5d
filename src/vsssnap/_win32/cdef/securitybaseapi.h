/* Rights of this process, and the state of a service -- securitybaseapi.h, processthreadsapi.h,
 * winbase.h, winnt.h, winsvc.h; Windows SDK 10.0.22621. */
typedef struct {
    LUID Luid;
    DWORD Attributes;
} LUID_AND_ATTRIBUTES;

typedef struct {
    DWORD PrivilegeCount;
    LUID_AND_ATTRIBUTES Privileges[1];
} TOKEN_PRIVILEGES;

typedef struct {
    DWORD dwServiceType;
    DWORD dwStartType;
    DWORD dwErrorControl;
    LPWSTR lpBinaryPathName;
    LPWSTR lpLoadOrderGroup;
    DWORD dwTagId;
    LPWSTR lpDependencies;
    LPWSTR lpServiceStartName;
    LPWSTR lpDisplayName;
} QUERY_SERVICE_CONFIGW;

library advapi32 {
    BOOL OpenProcessToken(HANDLE, DWORD, HANDLE *);
    BOOL GetTokenInformation(HANDLE, DWORD, void *, DWORD, DWORD *);
    BOOL LookupPrivilegeValueW(LPCWSTR, LPCWSTR, LUID *);
    BOOL AdjustTokenPrivileges(HANDLE, BOOL, TOKEN_PRIVILEGES *, DWORD, TOKEN_PRIVILEGES *, DWORD *);
    HANDLE OpenSCManagerW(LPCWSTR, LPCWSTR, DWORD);
    HANDLE OpenServiceW(HANDLE, LPCWSTR, DWORD);
    BOOL QueryServiceConfigW(HANDLE, QUERY_SERVICE_CONFIGW *, DWORD, DWORD *);
    BOOL CloseServiceHandle(HANDLE);
    /* winreg.h; HKEY is as wide as HANDLE */
    LONG RegOpenKeyExW(HANDLE, LPCWSTR, DWORD, DWORD, HANDLE *);
    LONG RegEnumValueW(HANDLE, DWORD, LPWSTR, DWORD *, DWORD *, DWORD *, BYTE *, DWORD *);
    LONG RegCloseKey(HANDLE);
};
