// A vssapi.dll for the laboratory: the requester's side of VSS, compiled from mingw-w64's headers by
// its C++ compiler, which knows nothing of our binding.  It writes down every call with its arguments
// as it received them, and gives answers that the test knows.
//
// The log is the file named by VSSSNAP_LAB_LOG.  At the instant the device VSSSNAP_LAB_VOLUME, a volume of
// volsnap.c, is told to keep what will be overwritten; its shadow copy is gone once VSSSNAP_LAB_LOST exists.

#include "../wine_com/com.h"
#include <cstdlib>

void note(const char *format, ...) {
    const char *path = getenv("VSSSNAP_LAB_LOG");
    FILE *file = path ? fopen(path, "ab") : nullptr;
    if (!file) return;
    va_list arguments;
    va_start(arguments, format);
    vfprintf(file, format, arguments);
    va_end(arguments);
    fputc('\n', file);
    fclose(file);
}

static const GUID WRITER = {0x11111111, 0x2222, 0x3333, {0x44, 0x44, 1, 2, 3, 4, 5, 6}};
static const GUID INSTANCE = {0x99999999, 0x8888, 0x7777, {0x66, 0x66, 6, 5, 4, 3, 2, 1}};
static const GUID SET = {0xabcdef01, 0x2345, 0x6789, {0xab, 0xcd, 0xef, 1, 2, 3, 4, 5}};
static const GUID COPY = {0x0badcafe, 0x1234, 0x5678, {0x9a, 0xbc, 0xde, 0xf0, 0x12, 0x34, 0x56, 0x78}};
static const GUID PROVIDER = {0xb5946137, 0x7b9f, 0x4925, {0xaf, 0x80, 0x51, 0xab, 0xd6, 0x0b, 0x20, 0xd5}};
static const WCHAR NAME[] = L"Sp\u00e4tzle \U0001F400 Writer";  // beyond ASCII, and beyond 16 bits

struct Async : Object<IVssAsync> {
    const char *name;
    HRESULT outcome;
    int pending = 2;
    Async(const char *name, HRESULT outcome) : name(name), outcome(outcome) {}
    HRESULT STDMETHODCALLTYPE Cancel() override {
        note("%s.Cancel", name);
        pending = 0;
        outcome = VSS_S_ASYNC_CANCELLED;
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE Wait(DWORD milliseconds) override {
        if (milliseconds > 1000) note("%s.Wait %lu", name, milliseconds);
        if (pending > 0 && pending < 1000) pending--;
        else if (pending) Sleep(milliseconds);
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE QueryStatus(HRESULT *result, INT *reserved) override {
        if (reserved) note("%s.QueryStatus reserved", name);
        *result = pending ? VSS_S_ASYNC_PENDING : outcome;
        return S_OK;
    }
};

struct Metadata : Object<IVssExamineWriterMetadata> {
    HRESULT STDMETHODCALLTYPE GetIdentity(VSS_ID *instance, VSS_ID *writer, BSTR *name, VSS_USAGE_TYPE *usage,
                                          VSS_SOURCE_TYPE *source) override {
        *instance = INSTANCE;
        *writer = WRITER;
        *name = SysAllocString(NAME);
        *usage = VSS_UT_USERDATA;
        *source = VSS_ST_OTHER;
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE SaveAsXML(BSTR *xml) override {
        *xml = SysAllocStringLen(L"<m>\0</m>", 8);  // a BSTR may hold a zero
        return S_OK;
    }
    ABSENT(GetFileCounts, UINT *, UINT *, UINT *)
    ABSENT(GetIncludeFile, UINT, IVssWMFiledesc **)
    ABSENT(GetExcludeFile, UINT, IVssWMFiledesc **)
    ABSENT(GetComponent, UINT, IVssWMComponent **)
    ABSENT(GetRestoreMethod, VSS_RESTOREMETHOD_ENUM *, BSTR *, BSTR *, VSS_WRITERRESTORE_ENUM *, boolean *, UINT *)
    ABSENT(GetAlternateLocationMapping, UINT, IVssWMFiledesc **)
    ABSENT(GetBackupSchema, DWORD *)
    ABSENT(GetDocument, IXMLDOMDocument **)
    ABSENT(LoadFromXML, BSTR)
};

struct Components : Object<IVssBackupComponentsEx3> {
    bool answers(REFIID id) override {
        note("QueryInterface %s", Text(id).text);
        return id == IID_IVssBackupComponents || id == IID_IVssBackupComponentsEx ||
               id == IID_IVssBackupComponentsEx2 || id == IID_IVssBackupComponentsEx3;
    }
    ~Components() { note("released, objects left: %ld", live - 1); }
    static HRESULT begin(const char *name, IVssAsync **out) {
        const char *failing = getenv("VSSSNAP_LAB_FAIL"), *hanging = getenv("VSSSNAP_LAB_HANG");
        note("%s", name);
        Async *made = new Async(name, failing && !strcmp(failing, name) ? VSS_E_HOLD_WRITES_TIMEOUT : VSS_S_ASYNC_FINISHED);
        if (hanging && !strcmp(hanging, name)) made->pending = 1000000;
        *out = made;
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE InitializeForBackup(BSTR xml) override {
        note("InitializeForBackup %s", xml ? "document" : "NULL");
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE SetContext(LONG context) override {
        note("SetContext %#lx", context);
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE SetBackupState(boolean select, boolean bootable, VSS_BACKUP_TYPE type,
                                             boolean partial) override {
        note("SetBackupState %u %u %d %u", select, bootable, type, partial);
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE DisableWriterClasses(const VSS_ID *ids, UINT count) override {
        for (UINT index = 0; index < count; index++) note("DisableWriterClasses %s", Text(ids[index]).text);
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE GatherWriterMetadata(IVssAsync **out) override { return begin("GatherWriterMetadata", out); }
    HRESULT STDMETHODCALLTYPE GetWriterMetadataCount(UINT *count) override {
        *count = 1;
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE GetWriterMetadata(UINT index, VSS_ID *instance, IVssExamineWriterMetadata **out) override {
        note("GetWriterMetadata %u", index);
        *instance = INSTANCE;
        *out = new Metadata;
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE FreeWriterMetadata() override {
        note("FreeWriterMetadata");
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE StartSnapshotSet(VSS_ID *set) override {
        static int tries = 0;
        const char *busy = getenv("VSSSNAP_LAB_BUSY");
        note("StartSnapshotSet");
        if (busy && tries++ < atoi(busy)) return VSS_E_SNAPSHOT_SET_IN_PROGRESS;
        *set = SET;
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE IsVolumeSupported(VSS_ID provider, VSS_PWSZ volume, WINBOOL *supported) override {
        note("IsVolumeSupported %s %s", Text(provider).text, Text(volume).text);
        *supported = TRUE;
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE AddToSnapshotSet(VSS_PWSZ volume, VSS_ID provider, VSS_ID *copy) override {
        note("AddToSnapshotSet %s %s", Text(volume).text, Text(provider).text);
        *copy = COPY;
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE PrepareForBackup(IVssAsync **out) override { return begin("PrepareForBackup", out); }
    HRESULT STDMETHODCALLTYPE DoSnapshotSet(IVssAsync **out) override {
        const char *volume = getenv("VSSSNAP_LAB_VOLUME");
        if (volume) {
            const DWORD take = CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_ANY_ACCESS);
            HANDLE device = CreateFileA(volume, 0, FILE_SHARE_READ | FILE_SHARE_WRITE, nullptr, OPEN_EXISTING, 0, nullptr);
            DWORD got = 0;
            BOOL done = DeviceIoControl(device, take, nullptr, 0, nullptr, 0, &got, nullptr);
            CloseHandle(device);
            if (!done) return VSS_E_UNEXPECTED_PROVIDER_ERROR;
        }
        return begin("DoSnapshotSet", out);
    }
    HRESULT STDMETHODCALLTYPE BackupComplete(IVssAsync **out) override { return begin("BackupComplete", out); }
    HRESULT STDMETHODCALLTYPE GatherWriterStatus(IVssAsync **out) override { return begin("GatherWriterStatus", out); }
    HRESULT STDMETHODCALLTYPE AbortBackup() override {
        note("AbortBackup");
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE GetWriterStatusCount(UINT *count) override {
        *count = 1;
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE GetWriterStatus(UINT index, VSS_ID *instance, VSS_ID *writer, BSTR *name,
                                              VSS_WRITER_STATE *state, HRESULT *failure) override {
        note("GetWriterStatus %u", index);
        *instance = INSTANCE;
        *writer = WRITER;
        *name = SysAllocString(NAME);
        *state = VSS_WS_FAILED_AT_FREEZE;
        *failure = VSS_E_WRITERERROR_TIMEOUT;
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE GetWriterStatusEx(UINT index, VSS_ID *instance, VSS_ID *writer, BSTR *name,
                                                VSS_WRITER_STATE *state, HRESULT *failure, HRESULT *application,
                                                BSTR *message) override {
        GetWriterStatus(index, instance, writer, name, state, failure);
        *application = E_FAIL;
        *message = SysAllocString(L"log is full");
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE FreeWriterStatus() override {
        note("FreeWriterStatus");
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE SaveAsXML(BSTR *xml) override {
        *xml = SysAllocString(L"<b/>");
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE GetSnapshotProperties(VSS_ID copy, VSS_SNAPSHOT_PROP *found) override {
        note("GetSnapshotProperties %s", Text(copy).text);
        const char *lost = getenv("VSSSNAP_LAB_LOST");
        if (copy != COPY || (lost && GetFileAttributesA(lost) != INVALID_FILE_ATTRIBUTES)) return VSS_E_OBJECT_NOT_FOUND;
        found->m_SnapshotId = COPY;
        found->m_SnapshotSetId = SET;
        found->m_lSnapshotsCount = 1;
        found->m_pwszSnapshotDeviceObject = counted(L"\\\\?\\GLOBALROOT\\Device\\HarddiskVolumeShadowCopy7");
        found->m_pwszOriginalVolumeName = counted(L"\\\\?\\Volume{original}\\");
        found->m_ProviderId = PROVIDER;
        found->m_lSnapshotAttributes = VSS_VOLSNAP_ATTR_DIFFERENTIAL;
        found->m_tsCreationTimestamp = 133485408000000000LL;  // 2024-01-01 00:00 UTC
        found->m_eStatus = VSS_SS_CREATED;
        return S_OK;
    }
    static VSS_PWSZ counted(const WCHAR *text) {
        InterlockedIncrement(&live);
        return wide(text);
    }
    HRESULT STDMETHODCALLTYPE DeleteSnapshots(VSS_ID source, VSS_OBJECT_TYPE type, WINBOOL force, LONG *deleted,
                                              VSS_ID *failed) override {
        note("DeleteSnapshots %s %d %d", Text(source).text, type, force);
        *deleted = 1;
        *failed = GUID{};
        return S_OK;
    }
    ABSENT(GetWriterComponentsCount, UINT *)
    ABSENT(GetWriterComponents, UINT, IVssWriterComponentsExt **)
    ABSENT(InitializeForRestore, BSTR)
    ABSENT(SetRestoreState, VSS_RESTORE_TYPE)
    ABSENT(AddComponent, VSS_ID, VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR)
    ABSENT(SetBackupSucceeded, VSS_ID, VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR, boolean)
    ABSENT(SetBackupOptions, VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR, LPCWSTR)
    ABSENT(SetSelectedForRestore, VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR, boolean)
    ABSENT(SetRestoreOptions, VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR, LPCWSTR)
    ABSENT(SetAdditionalRestores, VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR, boolean)
    ABSENT(SetPreviousBackupStamp, VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR, LPCWSTR)
    ABSENT(AddAlternativeLocationMapping, VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR, LPCWSTR, LPCWSTR, boolean, LPCWSTR)
    ABSENT(AddRestoreSubcomponent, VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR, LPCWSTR, LPCWSTR, boolean)
    ABSENT(SetFileRestoreStatus, VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR, VSS_FILE_RESTORE_STATUS)
    ABSENT(AddNewTarget, VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR, LPCWSTR, LPCWSTR, boolean, LPCWSTR)
    ABSENT(SetRangesFilePath, VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR, UINT, LPCWSTR)
    ABSENT(PreRestore, IVssAsync **)
    ABSENT(PostRestore, IVssAsync **)
    ABSENT(ImportSnapshots, IVssAsync **)
    ABSENT(BreakSnapshotSet, VSS_ID)
    ABSENT(Query, VSS_ID, VSS_OBJECT_TYPE, VSS_OBJECT_TYPE, IVssEnumObject **)
    ABSENT(EnableWriterClasses, const VSS_ID *, UINT)
    ABSENT(DisableWriterInstances, const VSS_ID *, UINT)
    ABSENT(ExposeSnapshot, VSS_ID, VSS_PWSZ, LONG, VSS_PWSZ, VSS_PWSZ *)
    ABSENT(RevertToSnapshot, VSS_ID, BOOL)
    ABSENT(QueryRevertStatus, VSS_PWSZ, IVssAsync **)
    ABSENT(GetWriterMetadataEx, UINT, VSS_ID *, IVssExamineWriterMetadataEx **)
    ABSENT(SetSelectedForRestoreEx, VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR, boolean, VSS_ID)
    ABSENT(UnexposeSnapshot, VSS_ID)
    ABSENT(SetAuthoritativeRestore, VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR, boolean)
    ABSENT(SetRollForward, VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR, VSS_ROLLFORWARD_TYPE, LPCWSTR)
    ABSENT(SetRestoreName, VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR, LPCWSTR)
    ABSENT(BreakSnapshotSetEx, VSS_ID, DWORD, IVssAsync **)
    ABSENT(PreFastRecovery, VSS_ID, DWORD, IVssAsync **)
    ABSENT(FastRecovery, VSS_ID, DWORD, IVssAsync **)
    ABSENT(AddSnapshotToRecoverySet, VSS_ID, DWORD, VSS_PWSZ)
    ABSENT(RecoverSet, DWORD, IVssAsync **)
    ABSENT(GetSessionId, VSS_ID *)
};

extern "C" HRESULT WINAPI CreateVssBackupComponentsInternal(IVssBackupComponents **out) {
    note("CreateVssBackupComponents");
    *out = new Components;
    return S_OK;
}

extern "C" void WINAPI VssFreeSnapshotPropertiesInternal(VSS_SNAPSHOT_PROP *found) {
    VSS_PWSZ *strings[] = {&found->m_pwszSnapshotDeviceObject, &found->m_pwszOriginalVolumeName};
    for (VSS_PWSZ *text : strings) {
        if (*text) InterlockedDecrement(&live);
        CoTaskMemFree(*text);
        *text = nullptr;
    }
}
