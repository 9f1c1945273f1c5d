/* IVssAsync, IVssEnumObject and their structures -- vss.h; Windows SDK 10.0.22621. */
typedef GUID VSS_ID; /* passed by value */
typedef WCHAR *VSS_PWSZ; /* CoTaskMemFree, but for those in a VSS_SNAPSHOT_PROP */
typedef LONGLONG VSS_TIMESTAMP; /* 100 ns since 1601-01-01 UTC */
typedef int32_t VSS_OBJECT_TYPE;
typedef int32_t VSS_SNAPSHOT_STATE;
typedef int32_t VSS_WRITER_STATE;
typedef int32_t VSS_BACKUP_TYPE;
typedef int32_t VSS_RESTORE_TYPE;
typedef int32_t VSS_ROLLFORWARD_TYPE;
typedef int32_t VSS_PROVIDER_TYPE;

typedef struct {
    VSS_ID m_SnapshotId;
    VSS_ID m_SnapshotSetId;
    LONG m_lSnapshotsCount;
    VSS_PWSZ m_pwszSnapshotDeviceObject;
    VSS_PWSZ m_pwszOriginalVolumeName;
    VSS_PWSZ m_pwszOriginatingMachine;
    VSS_PWSZ m_pwszServiceMachine;
    VSS_PWSZ m_pwszExposedName;
    VSS_PWSZ m_pwszExposedPath;
    VSS_ID m_ProviderId;
    LONG m_lSnapshotAttributes;
    VSS_TIMESTAMP m_tsCreationTimestamp;
    VSS_SNAPSHOT_STATE m_eStatus;
} VSS_SNAPSHOT_PROP;

typedef struct {
    VSS_ID m_ProviderId;
    VSS_PWSZ m_pwszProviderName;
    VSS_PROVIDER_TYPE m_eProviderType;
    VSS_PWSZ m_pwszProviderVersion;
    VSS_ID m_ProviderVersionId;
    CLSID m_ClassId;
} VSS_PROVIDER_PROP;

typedef union {
    VSS_SNAPSHOT_PROP Snap;
    VSS_PROVIDER_PROP Prov;
} VSS_OBJECT_UNION;

typedef struct {
    VSS_OBJECT_TYPE Type;
    VSS_OBJECT_UNION Obj;
} VSS_OBJECT_PROP;

interface IVssEnumObject : IUnknown {
    HRESULT Next(ULONG, VSS_OBJECT_PROP *, ULONG *);
    HRESULT Skip(ULONG);
    HRESULT Reset();
    HRESULT Clone(IVssEnumObject **);
};

interface IVssAsync : IUnknown {
    HRESULT Cancel();
    HRESULT Wait(DWORD);
    HRESULT QueryStatus(HRESULT *, INT *);
};
