// A vssapi.dll for the laboratory that keeps to the documentation: it refuses calls out of order, notes
// what must not be done, fails where a test says, and counts what it gave out: objects, memory of COM
// (strings and structures), shadow copies.  Compiled from mingw-w64's headers by its C++ compiler, which
// knows nothing of our binding.  The rules are those of the pages of IVssBackupComponents and IVssAsync.

#include "lab.h"

// What a test says.

struct Fault {
    std::string call;
    int where;  // 0 the call, 1 its operation, 2 waiting for that
    HRESULT code;
    int times, skip;
};
static std::vector<Fault> faults;
static std::string hanging;
static DWORD deaf;  // milliseconds that a hanging operation goes on after Cancel
static bool busy;   // another program creates a set
static bool jammed; // an operation was released while it was pending
static volatile LONG stuck;  // how often an operation hung, or a set was refused because of another program's
static void *creating;
std::string journal;
static std::string asked;  // where a fault could have been, a line each
int violations;

HRESULT fault(const char *call, int where) {
    asked += std::string(call) + " " + std::to_string(where) + "\n";
    for (Fault &known : faults)
        if (known.call == call && known.where == where && known.times > 0) {
            if (known.skip-- > 0) return S_OK;
            known.times--;
            return known.code;
        }
    return S_OK;
}

static Writer writers[2] = {
    {{0x11111111, 0x2222, 0x3333, {0x44, 0x44, 1, 2, 3, 4, 5, 6}}, {0xa1}, L"Lab Writer"},
    {{0x55555555, 0x6666, 0x7777, {0x88, 0x88, 6, 5, 4, 3, 2, 1}}, {0xa2}, L"Idle Writer"},
};

void Writer::on(int event) {
    static const VSS_WRITER_STATE failed[] = {VSS_WS_FAILED_AT_PREPARE_BACKUP, VSS_WS_FAILED_AT_FREEZE,
        VSS_WS_FAILED_AT_BACKUP_COMPLETE, VSS_WS_FAILED_AT_PRE_RESTORE, VSS_WS_FAILED_AT_POST_RESTORE};
    if (event == PREPARE || event == PRE_RESTORE) state = VSS_WS_STABLE, failure = S_OK;
    if (failure) return;
    if (event == fails_at && times > 0) {
        times--;
        state = failed[event];
        failure = code;
    } else state = event == FREEZE ? VSS_WS_WAITING_FOR_BACKUP_COMPLETE : VSS_WS_STABLE;
}

std::vector<Shadow> shadows;
static unsigned next_id = 1;

static GUID fresh() {
    GUID id = {next_id++, 0x1234, 0x5678, {0x9a, 0xbc, 0xde, 0xf0, 0x12, 0x34, 0x56, 0x78}};
    return id;
}

static void fill(VSS_SNAPSHOT_PROP *out, const Shadow &shadow) {
    out->m_SnapshotId = shadow.id;
    out->m_SnapshotSetId = shadow.set;
    out->m_lSnapshotsCount = 1;
    out->m_pwszSnapshotDeviceObject = wide(L"\\\\?\\GLOBALROOT\\Device\\HarddiskVolumeShadowCopy7");
    out->m_pwszOriginalVolumeName = wide(shadow.volume.c_str());
    out->m_pwszExposedName = shadow.exposed.empty() ? nullptr : wide(shadow.exposed.c_str());
    out->m_lSnapshotAttributes = shadow.context | VSS_VOLSNAP_ATTR_DIFFERENTIAL;
    out->m_tsCreationTimestamp = 133485408000000000LL;  // 2024-01-01 00:00 UTC
    out->m_eStatus = VSS_SS_CREATED;
}

struct Async : Object<IVssAsync> {
    std::string call;
    std::function<void()> effect;
    HRESULT planned, outcome = VSS_S_ASYNC_PENDING;
    bool hangs, cancelled = false;
    DWORD until = 0;
    int looks = 2;
    Async(const char *call, std::function<void()> effect) : call(call), effect(effect) {
        planned = fault(call, 1);
        hangs = hanging == call;
        if (hangs) InterlockedIncrement(&stuck);
    }
    ~Async() {
        if (outcome != VSS_S_ASYNC_PENDING || call == "QueryRevertStatus") return;  // that goes on all the same
        forbid("%s: its IVssAsync was released while it was pending", call.c_str());
        jammed = true;
    }
    void advance() {
        if (outcome != VSS_S_ASYNC_PENDING) return;
        if (cancelled) {
            if (GetTickCount() >= until) outcome = VSS_S_ASYNC_CANCELLED;
        } else if (!hangs && --looks <= 0) {
            if (!planned) effect();
            outcome = planned ? planned : VSS_S_ASYNC_FINISHED;
        }
    }
    HRESULT STDMETHODCALLTYPE Cancel() override {
        note("Cancel");
        cancelled = true;
        until = GetTickCount() + deaf;
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE Wait(DWORD milliseconds) override {
        if (milliseconds > 1000) forbid("%s: waits %lu ms and cannot be cancelled meanwhile", call.c_str(), milliseconds);
        if (outcome == VSS_S_ASYNC_PENDING && (hangs || cancelled)) Sleep(milliseconds < 20 ? milliseconds : 20);
        if (HRESULT code = fault(call.c_str(), 2)) return code;
        return S_OK;  // whatever becomes of the operation: QueryStatus tells
    }
    HRESULT STDMETHODCALLTYPE QueryStatus(HRESULT *result, INT *reserved) override {
        if (reserved) forbid("QueryStatus: pReserved should be NULL");
        advance();
        *result = outcome;
        return S_OK;
    }
};

HRESULT begin(const char *call, IVssAsync **out, std::function<void()> effect) {
    *out = new Async(call, effect);
    return S_OK;
}

struct Components : Requester {
    LONG context = 0;
    bool context_set = false, state_set = false, select = false, gathering = false, gathered = false;
    bool unread = false, statuses = false, aborted = false, completed = false;
    GUID set = {};
    bool started = false;
    std::vector<Shadow> own;
    std::vector<Saved> document;

    bool with_writers() { return !(context & VSS_VOLSNAP_ATTR_NO_WRITERS); }
    bool takes_part(const Writer &writer) {
        if (!select && !restore) return true;
        for (Saved &one : document) if (one.writer == writer.id && (!restore || one.selected)) return true;
        return false;
    }
    void tell(int event) {
        for (Writer &writer : writers) if (takes_part(writer)) writer.on(event);
    }
    void leave() {
        if (creating == this) creating = nullptr;
    }
    ~Components() {
        note("released");
        if (prepared == DONE && !completed && !aborted) forbid("released after PrepareForBackup without AbortBackup");
        if (started && done != DONE && !aborted) forbid("released after StartSnapshotSet without AbortBackup");
        if (unread) forbid("released without FreeWriterMetadata");
        if (statuses) forbid("released without FreeWriterStatus");
        if (restoring == 1) forbid("released after PreRestore without PostRestore");
        leave();
        for (size_t index = 0; index < shadows.size();)
            if (shadows[index].set == set && !(shadows[index].context & VSS_VOLSNAP_ATTR_NO_AUTO_RELEASE))
                shadows.erase(shadows.begin() + index);
            else index++;
    }
    bool answers(REFIID id) override {
        return id == IID_IVssBackupComponents || id == IID_IVssBackupComponentsEx ||
               id == IID_IVssBackupComponentsEx2 || id == IID_IVssBackupComponentsEx3;
    }
    bool initialized = false;
#define INITIALIZED if (!initialized) return VSS_E_BAD_STATE;
    HRESULT STDMETHODCALLTYPE InitializeForBackup(BSTR xml) override {
        CALLED(InitializeForBackup)
        if (initialized || xml) return VSS_E_BAD_STATE;
        initialized = true;
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE SetContext(LONG value) override {
        CALLED(SetContext)
        INITIALIZED
        if (context_set || gathering || started) return VSS_E_BAD_STATE;
        context_set = true;
        context = value;
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE SetBackupState(boolean components, boolean, VSS_BACKUP_TYPE kind, boolean) override {
        CALLED(SetBackupState)
        INITIALIZED
        if (restore || prepared) return VSS_E_BAD_STATE;
        note("  select %d, kind %d", components, kind);
        state_set = true;
        select = components;
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE GatherWriterMetadata(IVssAsync **out) override {
        CALLED(GatherWriterMetadata)
        INITIALIZED
        if (gathering) return VSS_E_BAD_STATE;
        gathering = true;
        return begin("GatherWriterMetadata", out, [this] { gathered = unread = true; });
    }
    HRESULT STDMETHODCALLTYPE GetWriterMetadataCount(UINT *count) override {
        CALLED(GetWriterMetadataCount)
        if (!unread) return VSS_E_BAD_STATE;
        *count = 2;
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE GetWriterMetadata(UINT index, VSS_ID *instance, IVssExamineWriterMetadata **out) override {
        CALLED(GetWriterMetadata)
        if (!unread) return VSS_E_BAD_STATE;
        *instance = writers[index].instance;
        *out = metadata_of(writers[index], index == 0);
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE FreeWriterMetadata() override {
        unread = false;
        MAY_FAIL(FreeWriterMetadata)
        return gathered ? S_OK : VSS_E_BAD_STATE;
    }
    HRESULT STDMETHODCALLTYPE AddComponent(VSS_ID instance, VSS_ID writer, VSS_COMPONENT_TYPE kind, LPCWSTR path,
                                           LPCWSTR name) override {
        CALLED(AddComponent)
        if (restore || !gathered || done) return VSS_E_BAD_STATE;
        if (!name || instance != writers[0].instance) return E_INVALIDARG;
        note("  %s\\%s %d of %s", Text(path).text, Text(name).text, kind, Text(writer).text);
        document.push_back({writer, instance, kind, path ? path : L"", name});
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE SetBackupSucceeded(VSS_ID, VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR name,
                                                 boolean succeeded) override {
        CALLED(SetBackupSucceeded)
        if (done != DONE || completed) forbid("SetBackupSucceeded is between DoSnapshotSet and BackupComplete");
        note("  %s %d", Text(name).text, succeeded);
        for (Saved &one : document) if (one.name == name) one.told = true, one.succeeded = succeeded;
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE StartSnapshotSet(VSS_ID *out) override {
        CALLED(StartSnapshotSet)
        INITIALIZED
        if (restore || started || prepared) return VSS_E_BAD_STATE;
        if (busy || jammed || creating) {
            InterlockedIncrement(&stuck);
            return VSS_E_SNAPSHOT_SET_IN_PROGRESS;
        }
        creating = this;
        started = true;
        *out = set = fresh();
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE IsVolumeSupported(VSS_ID, VSS_PWSZ, WINBOOL *supported) override {
        CALLED(IsVolumeSupported)
        INITIALIZED
        *supported = TRUE;
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE AddToSnapshotSet(VSS_PWSZ volume, VSS_ID, VSS_ID *id) override {
        CALLED(AddToSnapshotSet)
        if (!started || prepared || done || aborted) return VSS_E_BAD_STATE;
        own.push_back({fresh(), set, context, volume, L"", false});
        *id = own.back().id;
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE PrepareForBackup(IVssAsync **out) override {
        CALLED(PrepareForBackup)
        if (!state_set || !started || !with_writers() || prepared || aborted) return VSS_E_BAD_STATE;
        prepared = RUNNING;
        return begin("PrepareForBackup", out, [this] { tell(PREPARE), prepared = DONE; });
    }
    HRESULT STDMETHODCALLTYPE GatherWriterStatus(IVssAsync **out) override {
        CALLED(GatherWriterStatus)
        INITIALIZED
        return begin("GatherWriterStatus", out, [this] { statuses = true; });
    }
    HRESULT STDMETHODCALLTYPE GetWriterStatusCount(UINT *count) override {
        CALLED(GetWriterStatusCount)
        if (!statuses) return VSS_E_BAD_STATE;
        *count = 2;
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE GetWriterStatus(UINT index, VSS_ID *instance, VSS_ID *writer, BSTR *name,
                                              VSS_WRITER_STATE *state, HRESULT *failure) override {
        if (!statuses) return VSS_E_BAD_STATE;
        *instance = writers[index].instance;
        *writer = writers[index].id;
        *name = SysAllocString(writers[index].name);
        *state = writers[index].state;
        *failure = writers[index].failure;
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE GetWriterStatusEx(UINT index, VSS_ID *instance, VSS_ID *writer, BSTR *name,
                                                VSS_WRITER_STATE *state, HRESULT *failure, HRESULT *application,
                                                BSTR *message) override {
        CALLED(GetWriterStatusEx)
        *application = S_OK;
        *message = nullptr;
        return GetWriterStatus(index, instance, writer, name, state, failure);
    }
    HRESULT STDMETHODCALLTYPE FreeWriterStatus() override {
        statuses = false;
        MAY_FAIL(FreeWriterStatus)
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE DoSnapshotSet(IVssAsync **out) override {
        CALLED(DoSnapshotSet)
        bool ready = !with_writers() || (gathered && prepared == DONE);
        if (!started || done || aborted || !ready) return VSS_E_BAD_STATE;
        done = RUNNING;
        return begin("DoSnapshotSet", out, [this] {
            if (with_writers()) tell(FREEZE);
            shadows.insert(shadows.end(), own.begin(), own.end());
            done = DONE;
            leave();
        });
    }
    HRESULT STDMETHODCALLTYPE GetSnapshotProperties(VSS_ID id, VSS_SNAPSHOT_PROP *out) override {
        CALLED(GetSnapshotProperties)
        for (Shadow &shadow : shadows) if (shadow.id == id) return fill(out, shadow), S_OK;
        return VSS_E_OBJECT_NOT_FOUND;
    }
    HRESULT STDMETHODCALLTYPE SaveAsXML(BSTR *xml) override {
        CALLED(SaveAsXML)
        if (with_writers() && prepared != DONE) return VSS_E_BAD_STATE;
        *xml = SysAllocString(L"<backup/>");
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE BackupComplete(IVssAsync **out) override {
        CALLED(BackupComplete)
        if (done != DONE) forbid("BackupComplete after a DoSnapshotSet that did not succeed");
        if (done != DONE || !with_writers() || aborted) return VSS_E_BAD_STATE;
        for (Saved &one : document) if (!one.told) forbid("BackupComplete without SetBackupSucceeded");
        return begin("BackupComplete", out, [this] { tell(COMPLETE), completed = true; });
    }
    HRESULT STDMETHODCALLTYPE AbortBackup() override {
        CALLED(AbortBackup)
        INITIALIZED
        aborted = true;
        leave();
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE DeleteSnapshots(VSS_ID source, VSS_OBJECT_TYPE kind, WINBOOL, LONG *deleted,
                                              VSS_ID *failed) override {
        CALLED(DeleteSnapshots)
        note("  %s", kind == VSS_OBJECT_SNAPSHOT_SET ? "set" : "one");
        *deleted = 0;
        *failed = GUID{};
        for (size_t index = 0; index < shadows.size();) {
            Shadow &shadow = shadows[index];
            if ((kind == VSS_OBJECT_SNAPSHOT_SET ? shadow.set : shadow.id) != source) index++;
            else if (shadow.kept) return *failed = shadow.id, VSS_E_PROVIDER_VETO;
            else shadows.erase(shadows.begin() + index), ++*deleted;
        }
        return *deleted ? S_OK : VSS_E_OBJECT_NOT_FOUND;
    }
    HRESULT STDMETHODCALLTYPE Query(VSS_ID, VSS_OBJECT_TYPE, VSS_OBJECT_TYPE, IVssEnumObject **out) override {
        CALLED(Query)
        INITIALIZED
        auto made = new List<IVssEnumObject, VSS_OBJECT_PROP>;
        for (const Shadow &shadow : shadows)
            made->rest.push_back([shadow](VSS_OBJECT_PROP &prop) {
                prop.Type = VSS_OBJECT_SNAPSHOT;
                fill(&prop.Obj.Snap, shadow);
            });
        *out = made;
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE ExposeSnapshot(VSS_ID id, VSS_PWSZ folder, LONG attributes, VSS_PWSZ name,
                                             VSS_PWSZ *exposed) override {
        CALLED(ExposeSnapshot)
        note("  %s %s %#lx", Text(folder).text, Text(name).text, attributes);
        for (Shadow &shadow : shadows)
            if (shadow.id == id) return shadow.exposed = name, *exposed = wide(name), S_OK;
        return VSS_E_OBJECT_NOT_FOUND;
    }
    HRESULT STDMETHODCALLTYPE UnexposeSnapshot(VSS_ID id) override {
        CALLED(UnexposeSnapshot)
        for (Shadow &shadow : shadows)
            if (shadow.id == id && !shadow.exposed.empty()) return shadow.exposed = L"", S_OK;
        return VSS_E_OBJECT_NOT_FOUND;
    }
    // The restore.
    HRESULT STDMETHODCALLTYPE InitializeForRestore(BSTR xml) override {
        CALLED(InitializeForRestore)
        if (initialized) return VSS_E_BAD_STATE;
        note("  %s, %u units", Text(xml).text, SysStringLen(xml));
        initialized = restore = true;
        document = {{writers[0].id, writers[0].instance, VSS_CT_FILEGROUP, L"path", L"part"},
                    {writers[0].id, writers[0].instance, VSS_CT_DATABASE, L"", L"whole"}};
        document[1].succeeded = true;
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE GetWriterComponentsCount(UINT *count) override {
        CALLED(GetWriterComponentsCount)
        *count = 1;
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE GetWriterComponents(UINT, IVssWriterComponentsExt **out) override {
        CALLED(GetWriterComponents)
        *out = saved_of(document);
        return S_OK;
    }
    Saved *find(const GUID &writer, LPCWSTR path, LPCWSTR name) override {
        for (Saved &one : document)
            if (one.writer == writer && one.path == (path ? path : L"") && one.name == name) return &one;
        return nullptr;
    }
    HRESULT STDMETHODCALLTYPE SetSelectedForRestore(VSS_ID writer, VSS_COMPONENT_TYPE kind, LPCWSTR path, LPCWSTR name,
                                                    boolean selected) override {
        CALLED(SetSelectedForRestore)
        if (!restore || !gathered || restoring) return VSS_E_BAD_STATE;
        Saved *found = find(writer, path, name);
        if (!found || found->kind != kind) return VSS_E_OBJECT_NOT_FOUND;
        found->selected = selected;
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE SetRestoreOptions(VSS_ID writer, VSS_COMPONENT_TYPE, LPCWSTR path, LPCWSTR name,
                                                LPCWSTR options) override {
        CALLED(SetRestoreOptions)
        note("  %s", Text(options).text);
        return find(writer, path, name) ? S_OK : VSS_E_OBJECT_NOT_FOUND;
    }
    HRESULT STDMETHODCALLTYPE PreRestore(IVssAsync **out) override {
        CALLED(PreRestore)
        if (!restore || !gathered || restoring) return VSS_E_BAD_STATE;
        restoring = 1;
        return begin("PreRestore", out, [this] { tell(PRE_RESTORE); });
    }
    HRESULT STDMETHODCALLTYPE SetFileRestoreStatus(VSS_ID writer, VSS_COMPONENT_TYPE, LPCWSTR path, LPCWSTR name,
                                                   VSS_FILE_RESTORE_STATUS status) override {
        CALLED(SetFileRestoreStatus)
        if (restoring != 1) return VSS_E_BAD_STATE;
        note("  %s %d", Text(name).text, status);
        return find(writer, path, name) ? S_OK : VSS_E_OBJECT_NOT_FOUND;
    }
    HRESULT STDMETHODCALLTYPE PostRestore(IVssAsync **out) override {
        CALLED(PostRestore)
        if (restoring != 1) return VSS_E_BAD_STATE;
        restoring = 2;
        return begin("PostRestore", out, [this] { tell(POST_RESTORE); });
    }
};

extern "C" HRESULT WINAPI CreateVssBackupComponentsInternal(IVssBackupComponents **out) {
    CALLED(CreateVssBackupComponents)
    *out = new Components;
    return S_OK;
}

extern "C" void WINAPI VssFreeSnapshotPropertiesInternal(VSS_SNAPSHOT_PROP *found) {
    for (VSS_PWSZ *text : {&found->m_pwszSnapshotDeviceObject, &found->m_pwszOriginalVolumeName, &found->m_pwszExposedName}) {
        CoTaskMemFree(*text);
        *text = nullptr;
    }
}

// What a test says and asks.

extern "C" void WINAPI LabReset() {
    faults.clear();
    hanging.clear();
    shadows.clear();
    journal.clear();
    asked.clear();
    busy = jammed = false;
    stuck = 0;
    forget_storage();
    forget_reverting();
    violations = 0;
    creating = nullptr;
    for (Writer &writer : writers) writer.fails_at = -1, writer.state = VSS_WS_STABLE, writer.failure = S_OK;
}

extern "C" void WINAPI LabFail(const char *call, int where, HRESULT code, int times, int skip) {
    faults.push_back({call, where, code, times, skip});
}

extern "C" void WINAPI LabHang(const char *call, DWORD milliseconds) {
    hanging = call;
    deaf = milliseconds;
}

extern "C" void WINAPI LabBusy(int on) { busy = on; }

extern "C" int WINAPI LabStuck() { return stuck; }  // from any thread

extern "C" void WINAPI LabWriter(int index, int event, HRESULT code, int times) {
    writers[index].fails_at = event;
    writers[index].code = code;
    writers[index].times = times;
}

extern "C" void WINAPI LabKeep(int on) {  // the first shadow copy cannot be deleted
    if (!shadows.empty()) shadows[0].kept = on;
}

extern "C" void WINAPI LabLeave(const GUID *set, const WCHAR *volume) {  // a lasting shadow copy of somebody's
    shadows.push_back({fresh(), *set, VSS_CTX_APP_ROLLBACK, volume, L"", false});
}

extern "C" const char *WINAPI LabJournal() { return journal.c_str(); }

extern "C" const char *WINAPI LabAsked() { return asked.c_str(); }

extern "C" int WINAPI LabLeft(int what) {
    switch (what) {
    case 0: return live;
    case 1: return allocations();
    case 2: return shadows.size();
    case 3: return jammed || creating;
    case 4: return violations;
    case 5: return handles();
    }
    return -1;
}
