/* Writers' files and components -- vswriter.h; Windows SDK 10.0.22621. */
typedef int32_t VSS_USAGE_TYPE;
typedef int32_t VSS_SOURCE_TYPE;
typedef int32_t VSS_COMPONENT_TYPE;
typedef int32_t VSS_RESTOREMETHOD_ENUM;
typedef int32_t VSS_WRITERRESTORE_ENUM;
typedef int32_t VSS_RESTORE_TARGET;
typedef int32_t VSS_FILE_RESTORE_STATUS;

interface IVssWMFiledesc : IUnknown {
    HRESULT GetPath(BSTR *);
    HRESULT GetFilespec(BSTR *);
    HRESULT GetRecursive(bool *);
    HRESULT GetAlternateLocation(BSTR *);
    HRESULT GetBackupTypeMask(DWORD *);
};

interface IVssWMDependency : IUnknown {
    HRESULT GetWriterId(VSS_ID *);
    HRESULT GetLogicalPath(BSTR *);
    HRESULT GetComponentName(BSTR *);
};

interface IVssComponent : IUnknown {
    HRESULT GetLogicalPath(BSTR *);
    HRESULT GetComponentType(VSS_COMPONENT_TYPE *);
    HRESULT GetComponentName(BSTR *);
    HRESULT GetBackupSucceeded(bool *);
    HRESULT GetAlternateLocationMappingCount(UINT *);
    HRESULT GetAlternateLocationMapping(UINT, IVssWMFiledesc **);
    HRESULT SetBackupMetadata(LPCWSTR);
    HRESULT GetBackupMetadata(BSTR *);
    HRESULT AddPartialFile(LPCWSTR, LPCWSTR, LPCWSTR, LPCWSTR);
    HRESULT GetPartialFileCount(UINT *);
    HRESULT GetPartialFile(UINT, BSTR *, BSTR *, BSTR *, BSTR *);
    HRESULT IsSelectedForRestore(bool *);
    HRESULT GetAdditionalRestores(bool *);
    HRESULT GetNewTargetCount(UINT *);
    HRESULT GetNewTarget(UINT, IVssWMFiledesc **);
    HRESULT AddDirectedTarget(LPCWSTR, LPCWSTR, LPCWSTR, LPCWSTR, LPCWSTR, LPCWSTR);
    HRESULT GetDirectedTargetCount(UINT *);
    HRESULT GetDirectedTarget(UINT, BSTR *, BSTR *, BSTR *, BSTR *, BSTR *, BSTR *);
    HRESULT SetRestoreMetadata(LPCWSTR);
    HRESULT GetRestoreMetadata(BSTR *);
    HRESULT SetRestoreTarget(VSS_RESTORE_TARGET);
    HRESULT GetRestoreTarget(VSS_RESTORE_TARGET *);
    HRESULT SetPreRestoreFailureMsg(LPCWSTR);
    HRESULT GetPreRestoreFailureMsg(BSTR *);
    HRESULT SetPostRestoreFailureMsg(LPCWSTR);
    HRESULT GetPostRestoreFailureMsg(BSTR *);
    HRESULT SetBackupStamp(LPCWSTR);
    HRESULT GetBackupStamp(BSTR *);
    HRESULT GetPreviousBackupStamp(BSTR *);
    HRESULT GetBackupOptions(BSTR *);
    HRESULT GetRestoreOptions(BSTR *);
    HRESULT GetRestoreSubcomponentCount(UINT *);
    HRESULT GetRestoreSubcomponent(UINT, BSTR *, BSTR *, bool *);
    HRESULT GetFileRestoreStatus(VSS_FILE_RESTORE_STATUS *);
    HRESULT AddDifferencedFilesByLastModifyTime(LPCWSTR, LPCWSTR, BOOL, FILETIME);
    HRESULT AddDifferencedFilesByLastModifyLSN(LPCWSTR, LPCWSTR, BOOL, BSTR);
    HRESULT GetDifferencedFilesCount(UINT *);
    HRESULT GetDifferencedFile(UINT, BSTR *, BSTR *, BOOL *, BSTR *, FILETIME *);
};

interface IVssComponentEx : IVssComponent {
    HRESULT SetPrepareForBackupFailureMsg(LPCWSTR);
    HRESULT SetPostSnapshotFailureMsg(LPCWSTR);
    HRESULT GetPrepareForBackupFailureMsg(BSTR *);
    HRESULT GetPostSnapshotFailureMsg(BSTR *);
    HRESULT GetAuthoritativeRestore(bool *);
    HRESULT GetRollForward(VSS_ROLLFORWARD_TYPE *, BSTR *);
    HRESULT GetRestoreName(BSTR *);
};

interface IVssComponentEx2 : IVssComponentEx {
    HRESULT SetFailure(HRESULT, HRESULT, LPCWSTR, DWORD);
    HRESULT GetFailure(HRESULT *, HRESULT *, BSTR *, DWORD *);
};

interface IVssWriterComponents {
    HRESULT GetComponentCount(UINT *);
    HRESULT GetWriterInfo(VSS_ID *, VSS_ID *);
    HRESULT GetComponent(UINT, IVssComponent **);
};
