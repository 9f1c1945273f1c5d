/* Shadow storage -- vsmgmt.h; Windows SDK 10.0.22621. */
typedef int32_t VSS_MGMT_OBJECT_TYPE;
typedef int32_t VSS_PROTECTION_LEVEL;
typedef int32_t VSS_PROTECTION_FAULT;

typedef struct {
    VSS_PWSZ m_pwszVolumeName;
    VSS_PWSZ m_pwszVolumeDisplayName;
} VSS_VOLUME_PROP;

typedef struct {
    VSS_PWSZ m_pwszVolumeName;
    VSS_PWSZ m_pwszVolumeDisplayName;
    LONGLONG m_llVolumeFreeSpace;
    LONGLONG m_llVolumeTotalSpace;
} VSS_DIFF_VOLUME_PROP;

typedef struct {
    VSS_PWSZ m_pwszVolumeName;
    VSS_PWSZ m_pwszDiffAreaVolumeName;
    LONGLONG m_llMaximumDiffSpace;
    LONGLONG m_llAllocatedDiffSpace;
    LONGLONG m_llUsedDiffSpace;
} VSS_DIFF_AREA_PROP;

typedef union {
    VSS_VOLUME_PROP Vol;
    VSS_DIFF_VOLUME_PROP DiffVol;
    VSS_DIFF_AREA_PROP DiffArea;
} VSS_MGMT_OBJECT_UNION;

typedef struct {
    VSS_MGMT_OBJECT_TYPE Type;
    VSS_MGMT_OBJECT_UNION Obj;
} VSS_MGMT_OBJECT_PROP;

typedef struct {
    VSS_PROTECTION_LEVEL m_protectionLevel;
    BOOL m_volumeIsOfflineForProtection;
    VSS_PROTECTION_FAULT m_protectionFault;
    LONG m_failureStatus;
    BOOL m_volumeHasUnusedDiffArea;
    DWORD m_reserved;
} VSS_VOLUME_PROTECTION_INFO;

interface IVssSnapshotMgmt : IUnknown {
    HRESULT GetProviderMgmtInterface(VSS_ID, const GUID *, IUnknown **);
    HRESULT QueryVolumesSupportedForSnapshots(VSS_ID, LONG, IVssEnumMgmtObject **);
    HRESULT QuerySnapshotsByVolume(VSS_PWSZ, VSS_ID, IVssEnumObject **);
};

interface IVssSnapshotMgmt2 : IUnknown {
    HRESULT GetMinDiffAreaSize(LONGLONG *);
};

interface IVssDifferentialSoftwareSnapshotMgmt : IUnknown {
    HRESULT AddDiffArea(VSS_PWSZ, VSS_PWSZ, LONGLONG);
    HRESULT ChangeDiffAreaMaximumSize(VSS_PWSZ, VSS_PWSZ, LONGLONG);
    HRESULT QueryVolumesSupportedForDiffAreas(VSS_PWSZ, IVssEnumMgmtObject **);
    HRESULT QueryDiffAreasForVolume(VSS_PWSZ, IVssEnumMgmtObject **);
    HRESULT QueryDiffAreasOnVolume(VSS_PWSZ, IVssEnumMgmtObject **);
    HRESULT QueryDiffAreasForSnapshot(VSS_ID, IVssEnumMgmtObject **);
};

interface IVssDifferentialSoftwareSnapshotMgmt2 : IVssDifferentialSoftwareSnapshotMgmt {
    HRESULT ChangeDiffAreaMaximumSizeEx(VSS_PWSZ, VSS_PWSZ, LONGLONG, BOOL);
    HRESULT MigrateDiffAreas(VSS_PWSZ, VSS_PWSZ, VSS_PWSZ);
    HRESULT QueryMigrationStatus(VSS_PWSZ, VSS_PWSZ, IVssAsync **);
    HRESULT SetSnapshotPriority(VSS_ID, BYTE);
};

interface IVssDifferentialSoftwareSnapshotMgmt3 : IVssDifferentialSoftwareSnapshotMgmt2 {
    HRESULT SetVolumeProtectLevel(VSS_PWSZ, VSS_PROTECTION_LEVEL);
    HRESULT GetVolumeProtectLevel(VSS_PWSZ, VSS_VOLUME_PROTECTION_INFO *);
    HRESULT ClearVolumeProtectFault(VSS_PWSZ);
    HRESULT DeleteUnusedDiffAreas(VSS_PWSZ);
    HRESULT QuerySnapshotDeltaBitmap(VSS_ID, VSS_ID, ULONG *, ULONG *, BYTE **);
};

interface IVssEnumMgmtObject : IUnknown {
    HRESULT Next(ULONG, VSS_MGMT_OBJECT_PROP *, ULONG *);
    HRESULT Skip(ULONG);
    HRESULT Reset();
    HRESULT Clone(IVssEnumMgmtObject **);
};
