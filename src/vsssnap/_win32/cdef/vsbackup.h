/* The requester's interfaces -- vsbackup.h; Windows SDK 10.0.22621. */
typedef struct {
    VSS_COMPONENT_TYPE type;
    BSTR bstrLogicalPath;
    BSTR bstrComponentName;
    BSTR bstrCaption;
    BYTE *pbIcon;
    UINT cbIcon;
    bool bRestoreMetadata;
    bool bNotifyOnBackupComplete;
    bool bSelectable;
    bool bSelectableForRestore;
    DWORD dwComponentFlags;
    UINT cFileCount;
    UINT cDatabases;
    UINT cLogFiles;
    UINT cDependencies;
} VSS_COMPONENTINFO;

/* class IVssWriterComponentsExt : public IVssWriterComponents, public IUnknown.  Two vtables:
 * the first has no slots of IUnknown; it is released through the second. */
typedef struct {
    IVssWriterComponents components;
    IUnknown unknown;
} IVssWriterComponentsExt;

interface IVssWMComponent : IUnknown {
    HRESULT GetComponentInfo(const VSS_COMPONENTINFO **);
    HRESULT FreeComponentInfo(const VSS_COMPONENTINFO *);
    HRESULT GetFile(UINT, IVssWMFiledesc **);
    HRESULT GetDatabaseFile(UINT, IVssWMFiledesc **);
    HRESULT GetDatabaseLogFile(UINT, IVssWMFiledesc **);
    HRESULT GetDependency(UINT, IVssWMDependency **);
};

interface IVssExamineWriterMetadata : IUnknown {
    HRESULT GetIdentity(VSS_ID *, VSS_ID *, BSTR *, VSS_USAGE_TYPE *, VSS_SOURCE_TYPE *);
    HRESULT GetFileCounts(UINT *, UINT *, UINT *);
    HRESULT GetIncludeFile(UINT, IVssWMFiledesc **);
    HRESULT GetExcludeFile(UINT, IVssWMFiledesc **);
    HRESULT GetComponent(UINT, IVssWMComponent **);
    HRESULT GetRestoreMethod(VSS_RESTOREMETHOD_ENUM *, BSTR *, BSTR *, VSS_WRITERRESTORE_ENUM *, bool *, UINT *);
    HRESULT GetAlternateLocationMapping(UINT, IVssWMFiledesc **);
    HRESULT GetBackupSchema(DWORD *);
    HRESULT GetDocument(void **);
    HRESULT SaveAsXML(BSTR *);
    HRESULT LoadFromXML(BSTR);
};

interface IVssExamineWriterMetadataEx : IVssExamineWriterMetadata {
    HRESULT GetIdentityEx(VSS_ID *, VSS_ID *, BSTR *, BSTR *, VSS_USAGE_TYPE *, VSS_SOURCE_TYPE *);
};

interface IVssExamineWriterMetadataEx2 : IVssExamineWriterMetadataEx {
    HRESULT GetVersion(DWORD *, DWORD *);
    HRESULT GetExcludeFromSnapshotCount(UINT *);
    HRESULT GetExcludeFromSnapshotFile(UINT, IVssWMFiledesc **);
};

interface IVssBackupComponents : IUnknown {
    HRESULT GetWriterComponentsCount(UINT *);
    HRESULT GetWriterComponents(UINT, IVssWriterComponentsExt **);
    HRESULT InitializeForBackup(BSTR);
    HRESULT SetBackupState(bool, bool, VSS_BACKUP_TYPE, bool);
    HRESULT InitializeForRestore(BSTR);
    HRESULT SetRestoreState(VSS_RESTORE_TYPE);
    HRESULT GatherWriterMetadata(IVssAsync **);
    HRESULT GetWriterMetadataCount(UINT *);
    HRESULT GetWriterMetadata(UINT, VSS_ID *, IVssExamineWriterMetadata **);
    HRESULT FreeWriterMetadata();
    HRESULT AddComponent(VSS_ID, VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR);
    HRESULT PrepareForBackup(IVssAsync **);
    HRESULT AbortBackup();
    HRESULT GatherWriterStatus(IVssAsync **);
    HRESULT GetWriterStatusCount(UINT *);
    HRESULT FreeWriterStatus();
    HRESULT GetWriterStatus(UINT, VSS_ID *, VSS_ID *, BSTR *, VSS_WRITER_STATE *, HRESULT *);
    HRESULT SetBackupSucceeded(VSS_ID, VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR, bool);
    HRESULT SetBackupOptions(VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR, LPCWSTR);
    HRESULT SetSelectedForRestore(VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR, bool);
    HRESULT SetRestoreOptions(VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR, LPCWSTR);
    HRESULT SetAdditionalRestores(VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR, bool);
    HRESULT SetPreviousBackupStamp(VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR, LPCWSTR);
    HRESULT SaveAsXML(BSTR *);
    HRESULT BackupComplete(IVssAsync **);
    HRESULT AddAlternativeLocationMapping(VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR, LPCWSTR, LPCWSTR, bool, LPCWSTR);
    HRESULT AddRestoreSubcomponent(VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR, LPCWSTR, LPCWSTR, bool);
    HRESULT SetFileRestoreStatus(VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR, VSS_FILE_RESTORE_STATUS);
    HRESULT AddNewTarget(VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR, LPCWSTR, LPCWSTR, bool, LPCWSTR);
    HRESULT SetRangesFilePath(VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR, UINT, LPCWSTR);
    HRESULT PreRestore(IVssAsync **);
    HRESULT PostRestore(IVssAsync **);
    HRESULT SetContext(LONG);
    HRESULT StartSnapshotSet(VSS_ID *);
    HRESULT AddToSnapshotSet(VSS_PWSZ, VSS_ID, VSS_ID *);
    HRESULT DoSnapshotSet(IVssAsync **);
    HRESULT DeleteSnapshots(VSS_ID, VSS_OBJECT_TYPE, BOOL, LONG *, VSS_ID *);
    HRESULT ImportSnapshots(IVssAsync **);
    HRESULT BreakSnapshotSet(VSS_ID);
    HRESULT GetSnapshotProperties(VSS_ID, VSS_SNAPSHOT_PROP *);
    HRESULT Query(VSS_ID, VSS_OBJECT_TYPE, VSS_OBJECT_TYPE, IVssEnumObject **);
    HRESULT IsVolumeSupported(VSS_ID, VSS_PWSZ, BOOL *);
    HRESULT DisableWriterClasses(const VSS_ID *, UINT);
    HRESULT EnableWriterClasses(const VSS_ID *, UINT);
    HRESULT DisableWriterInstances(const VSS_ID *, UINT);
    HRESULT ExposeSnapshot(VSS_ID, VSS_PWSZ, LONG, VSS_PWSZ, VSS_PWSZ *);
    HRESULT RevertToSnapshot(VSS_ID, BOOL);
    HRESULT QueryRevertStatus(VSS_PWSZ, IVssAsync **);
};

interface IVssBackupComponentsEx : IVssBackupComponents {
    HRESULT GetWriterMetadataEx(UINT, VSS_ID *, IVssExamineWriterMetadataEx **);
    HRESULT SetSelectedForRestoreEx(VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR, bool, VSS_ID);
};

interface IVssBackupComponentsEx2 : IVssBackupComponentsEx {
    HRESULT UnexposeSnapshot(VSS_ID);
    HRESULT SetAuthoritativeRestore(VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR, bool);
    HRESULT SetRollForward(VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR, VSS_ROLLFORWARD_TYPE, LPCWSTR);
    HRESULT SetRestoreName(VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR, LPCWSTR);
    HRESULT BreakSnapshotSetEx(VSS_ID, DWORD, IVssAsync **);
    HRESULT PreFastRecovery(VSS_ID, DWORD, IVssAsync **);
    HRESULT FastRecovery(VSS_ID, DWORD, IVssAsync **);
};

interface IVssBackupComponentsEx3 : IVssBackupComponentsEx2 {
    HRESULT GetWriterStatusEx(UINT, VSS_ID *, VSS_ID *, BSTR *, VSS_WRITER_STATE *, HRESULT *, HRESULT *, BSTR *);
    HRESULT AddSnapshotToRecoverySet(VSS_ID, DWORD, VSS_PWSZ);
    HRESULT RecoverSet(DWORD, IVssAsync **);
    HRESULT GetSessionId(VSS_ID *);
};

interface IVssBackupComponentsEx4 : IVssBackupComponentsEx3 {
    HRESULT GetRootAndLogicalPrefixPaths(VSS_PWSZ, VSS_PWSZ *, VSS_PWSZ *, BOOL);
};

library vssapi {
    HRESULT CreateVssBackupComponentsInternal(IVssBackupComponents **);
    void VssFreeSnapshotPropertiesInternal(VSS_SNAPSHOT_PROP *);
    HRESULT CreateVssExamineWriterMetadataInternal(BSTR, IVssExamineWriterMetadata **);
    HRESULT ShouldBlockRevertInternal(LPCWSTR, bool *);
};
