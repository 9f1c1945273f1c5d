// Providers and shadow storage: the classes VSSCoordinator and VssSnapshotMgmt, after the pages of IVssAdmin,
// IVssSnapshotMgmt and IVssDifferentialSoftwareSnapshotMgmt.

#include "lab.h"

static const GUID SYSTEM_PROVIDER = {0xb5946137, 0x7b9f, 0x4925, {0xaf, 0x80, 0x51, 0xab, 0xd6, 0x0b, 0x20, 0xd5}};
static const GUID OTHER_PROVIDER = {0x0badcafe, 0x1234, 0x5678, {0x9a, 0xbc, 0xde, 0xf0, 0x12, 0x34, 0x56, 0x78}};
static const LONGLONG LEAST = 320LL << 20, FREE = 5LL << 40;  // bytes
static bool server = true;  // Windows Server, which protects volumes
static bool makes = true;   // changing shadow storage makes it, as from Windows 7 on

struct Volume {
    const WCHAR *root;
    std::wstring storage;  // "" for none
    LONGLONG maximum;
    VSS_PROTECTION_LEVEL level;
    VSS_PROTECTION_FAULT fault;
    bool unused;
    std::wstring path() const {
        WCHAR found[64] = L"";
        GetVolumeNameForVolumeMountPointW(root, found, 64);
        return found;
    }
};
static Volume volumes[2];

void forget_storage() {
    server = makes = true;
    volumes[0] = {L"C:\\"};
    volumes[1] = {L"Z:\\"};
}

static Volume *find(const WCHAR *name) {
    for (Volume &volume : volumes) if (name && volume.path() == name) return &volume;
    return nullptr;
}

struct Areas : Object<IVssDifferentialSoftwareSnapshotMgmt3> {
    bool answers(REFIID id) override {
        return id == __uuidof(IVssDifferentialSoftwareSnapshotMgmt) || id == __uuidof(IVssDifferentialSoftwareSnapshotMgmt2) ||
               (server && id == __uuidof(IVssDifferentialSoftwareSnapshotMgmt3));
    }
    HRESULT STDMETHODCALLTYPE QueryDiffAreasForVolume(VSS_PWSZ name, IVssEnumMgmtObject **out) override {
        CALLED(QueryDiffAreasForVolume)
        Volume *volume = find(name);
        if (!volume) return VSS_E_OBJECT_NOT_FOUND;
        auto made = new List<IVssEnumMgmtObject, VSS_MGMT_OBJECT_PROP>;
        if (!volume->storage.empty()) made->rest.push_back([volume](VSS_MGMT_OBJECT_PROP &prop) {
            prop.Type = VSS_MGMT_OBJECT_DIFF_AREA;
            prop.Obj.DiffArea = {wide(volume->path().c_str()), wide(volume->storage.c_str()), volume->maximum, 3LL << 32, 5};
        });
        *out = made;
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE ChangeDiffAreaMaximumSizeEx(VSS_PWSZ name, VSS_PWSZ storage, LONGLONG maximum,
                                                          WINBOOL passing) override {
        CALLED(ChangeDiffAreaMaximumSizeEx)
        note("  %lld %d", maximum, passing);
        Volume *volume = find(name);
        if (!volume || !find(storage)) return VSS_E_OBJECT_NOT_FOUND;
        if (volume->storage.empty() ? !makes : volume->storage != storage) return VSS_E_OBJECT_NOT_FOUND;
        for (Shadow &shadow : shadows) if (!maximum && shadow.volume == name) return VSS_E_VOLUME_IN_USE;
        if (maximum && maximum != -1 && (maximum < LEAST || maximum > FREE)) return VSS_E_INSUFFICIENT_STORAGE;
        volume->storage = maximum ? storage : L"";
        volume->maximum = maximum;
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE AddDiffArea(VSS_PWSZ name, VSS_PWSZ storage, LONGLONG maximum) override {
        CALLED(AddDiffArea)
        Volume *volume = find(name);
        if (!volume || !find(storage)) return VSS_E_OBJECT_NOT_FOUND;
        if (!volume->storage.empty()) return VSS_E_MAXIMUM_DIFFAREA_ASSOCIATIONS_REACHED;
        volume->storage = storage;
        volume->maximum = maximum;
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE SetVolumeProtectLevel(VSS_PWSZ name, VSS_PROTECTION_LEVEL level) override {
        CALLED(SetVolumeProtectLevel)
        Volume *volume = find(name);
        if (!volume) return VSS_E_OBJECT_NOT_FOUND;
        volume->level = level;
        if (level == VSS_PROTECTION_LEVEL_ORIGINAL_VOLUME) volume->fault = VSS_PROTECTION_FAULT_NONE;
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE GetVolumeProtectLevel(VSS_PWSZ name, VSS_VOLUME_PROTECTION_INFO *out) override {
        CALLED(GetVolumeProtectLevel)
        Volume *volume = find(name);
        if (!volume) return VSS_E_OBJECT_NOT_FOUND;
        *out = {volume->level, volume->fault != VSS_PROTECTION_FAULT_NONE, volume->fault,
                volume->fault ? VSS_E_INSUFFICIENT_STORAGE : S_OK, volume->unused, 0};
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE ClearVolumeProtectFault(VSS_PWSZ name) override {
        CALLED(ClearVolumeProtectFault)
        Volume *volume = find(name);
        if (!volume) return VSS_E_OBJECT_NOT_FOUND;
        volume->fault = VSS_PROTECTION_FAULT_NONE;
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE DeleteUnusedDiffAreas(VSS_PWSZ name) override {
        CALLED(DeleteUnusedDiffAreas)
        Volume *volume = find(name);
        if (!volume) return VSS_E_OBJECT_NOT_FOUND;
        volume->unused = false;
        return S_OK;
    }
    ABSENT(ChangeDiffAreaMaximumSize, VSS_PWSZ, VSS_PWSZ, LONGLONG)
    ABSENT(QueryVolumesSupportedForDiffAreas, VSS_PWSZ, IVssEnumMgmtObject **)
    ABSENT(QueryDiffAreasOnVolume, VSS_PWSZ, IVssEnumMgmtObject **)
    ABSENT(QueryDiffAreasForSnapshot, VSS_ID, IVssEnumMgmtObject **)
    ABSENT(MigrateDiffAreas, VSS_PWSZ, VSS_PWSZ, VSS_PWSZ)
    ABSENT(QueryMigrationStatus, VSS_PWSZ, VSS_PWSZ, IVssAsync **)
    ABSENT(SetSnapshotPriority, VSS_ID, BYTE)
    ABSENT(QuerySnapshotDeltaBitmap, VSS_ID, VSS_ID, ULONG *, ULONG *, BYTE **)
};

// One object with two interfaces, neither of which has the other's methods.
struct Management : Object<IVssSnapshotMgmt>, IVssSnapshotMgmt2 {
    ULONG STDMETHODCALLTYPE AddRef() override { return Object<IVssSnapshotMgmt>::AddRef(); }
    ULONG STDMETHODCALLTYPE Release() override { return Object<IVssSnapshotMgmt>::Release(); }
    HRESULT STDMETHODCALLTYPE QueryInterface(REFIID id, void **out) override {
        if (id != __uuidof(IVssSnapshotMgmt2)) return Object<IVssSnapshotMgmt>::QueryInterface(id, out);
        *out = static_cast<IVssSnapshotMgmt2 *>(this);
        AddRef();
        return S_OK;
    }
    bool answers(REFIID id) override { return id == __uuidof(IVssSnapshotMgmt); }
    HRESULT STDMETHODCALLTYPE GetProviderMgmtInterface(VSS_ID provider, REFIID id, IUnknown **out) override {
        CALLED(GetProviderMgmtInterface)
        if (provider != SYSTEM_PROVIDER) return VSS_E_PROVIDER_NOT_REGISTERED;
        auto made = new Areas;
        HRESULT code = made->QueryInterface(id, reinterpret_cast<void **>(out));
        made->Release();
        return code;
    }
    HRESULT STDMETHODCALLTYPE QueryVolumesSupportedForSnapshots(VSS_ID, LONG, IVssEnumMgmtObject **out) override {
        CALLED(QueryVolumesSupportedForSnapshots)
        auto made = new List<IVssEnumMgmtObject, VSS_MGMT_OBJECT_PROP>;
        for (Volume &volume : volumes) made->rest.push_back([&volume](VSS_MGMT_OBJECT_PROP &prop) {
            prop.Type = VSS_MGMT_OBJECT_VOLUME;
            prop.Obj.Vol = {wide(volume.path().c_str()), wide(volume.root)};
        });
        *out = made;
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE GetMinDiffAreaSize(LONGLONG *out) override {
        CALLED(GetMinDiffAreaSize)
        *out = LEAST;
        return S_OK;
    }
    ABSENT(QuerySnapshotsByVolume, VSS_PWSZ, VSS_ID, IVssEnumObject **)
};

struct Admin : Object<IVssAdmin> {
    bool answers(REFIID id) override { return id == __uuidof(IVssAdmin); }
    HRESULT STDMETHODCALLTYPE QueryProviders(IVssEnumObject **out) override {
        CALLED(QueryProviders)
        auto made = new List<IVssEnumObject, VSS_OBJECT_PROP>;
        made->rest = {[](VSS_OBJECT_PROP &prop) {
                          prop.Type = VSS_OBJECT_PROVIDER;
                          prop.Obj.Prov = {SYSTEM_PROVIDER, wide(L"Lab provider"), VSS_PROV_SYSTEM, wide(L"1.0.0.7")};
                      },
                      [](VSS_OBJECT_PROP &prop) {
                          prop.Type = VSS_OBJECT_PROVIDER;
                          prop.Obj.Prov = {OTHER_PROVIDER, wide(L"Sp\u00e4tzle \U0001F400"), VSS_PROV_HARDWARE, nullptr};
                      }};
        *out = made;
        return S_OK;
    }
    ABSENT(RegisterProvider, VSS_ID, CLSID, VSS_PWSZ, VSS_PROVIDER_TYPE, VSS_PWSZ, VSS_ID)
    ABSENT(UnregisterProvider, VSS_ID)
    ABSENT(AbortAllSnapshotsInProgress)
};

template <class Class> struct Factory : Object<IClassFactory> {
    bool answers(REFIID id) override { return id == IID_IClassFactory; }
    HRESULT STDMETHODCALLTYPE CreateInstance(IUnknown *, REFIID id, void **out) override {
        CALLED(CoCreateInstance)
        auto made = new Class;
        HRESULT code = made->QueryInterface(id, out);
        made->Release();
        return code;
    }
    HRESULT STDMETHODCALLTYPE LockServer(WINBOOL) override { return S_OK; }
};

// What a test says.  Called once, by a thread that stays in the multithreaded apartment: what is registered
// there is found before any server is started.
extern "C" HRESULT WINAPI LabManage() {
    static Factory<Admin> admin;
    static Factory<Management> management;
    DWORD cookie;
    HRESULT code = CoRegisterClassObject(__uuidof(VSSCoordinator), &admin, CLSCTX_LOCAL_SERVER, REGCLS_MULTIPLEUSE, &cookie);
    if (!FAILED(code))
        code = CoRegisterClassObject(__uuidof(VssSnapshotMgmt), &management, CLSCTX_LOCAL_SERVER, REGCLS_MULTIPLEUSE, &cookie);
    live = 0;  // the two are not counted
    return code;
}

extern "C" void WINAPI LabServer(int on) { server = on; }

extern "C" void WINAPI LabMakes(int on) { makes = on; }

extern "C" void WINAPI LabProtection(int index, int fault, int unused) {
    volumes[index].fault = VSS_PROTECTION_FAULT(fault);
    volumes[index].unused = unused;
}
