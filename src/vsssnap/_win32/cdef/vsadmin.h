/* Snapshot providers -- vsadmin.h; Windows SDK 10.0.22621. */
interface IVssAdmin : IUnknown {
    HRESULT RegisterProvider(VSS_ID, CLSID, VSS_PWSZ, VSS_PROVIDER_TYPE, VSS_PWSZ, VSS_ID);
    HRESULT UnregisterProvider(VSS_ID);
    HRESULT QueryProviders(IVssEnumObject **);
    HRESULT AbortAllSnapshotsInProgress();
};

interface IVssAdminEx : IVssAdmin {
    HRESULT GetProviderCapability(VSS_ID, ULONGLONG *);
    HRESULT GetProviderContext(VSS_ID, LONG *);
    HRESULT SetProviderContext(VSS_ID, LONG);
};
