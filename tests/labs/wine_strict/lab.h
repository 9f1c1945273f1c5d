// What the laboratory's strict vssapi.dll is made of: its journal, and the documents of writers and requesters.

#pragma once
#include "../wine_com/com.h"
#include <vsmgmt.h>
#include <vsadmin.h>
#include <functional>
#include <string>
#include <vector>

extern std::string journal;  // every call, a line each
extern int violations;

void forbid(const char *format, ...);
HRESULT fault(const char *call, int where);
void forget_storage();
void forget_reverting();

struct Shadow {
    GUID id, set;
    LONG context;
    std::wstring volume, exposed;
    bool kept;
};
extern std::vector<Shadow> shadows;
HRESULT begin(const char *call, IVssAsync **out, std::function<void()> effect);

#define MAY_FAIL(name) \
    if (HRESULT code = fault(#name, 0)) return code;
#define CALLED(name)   \
    note("%s", #name); \
    MAY_FAIL(name)

template <class Interface, class Prop> struct List : Object<Interface> {  // of functions that fill a structure
    std::vector<std::function<void(Prop &)>> rest;
    HRESULT STDMETHODCALLTYPE Next(ULONG count, Prop *out, ULONG *fetched) override {
        *fetched = 0;
        CALLED(Next)
        while (*fetched < count && !rest.empty()) {
            Prop &prop = out[(*fetched)++];
            memset(&prop, 0, sizeof prop);
            rest.front()(prop);
            rest.erase(rest.begin());
        }
        return *fetched == count ? S_OK : S_FALSE;
    }
    ABSENT(Skip, ULONG)
    ABSENT(Reset)
    ABSENT(Clone, Interface **)
};

enum { PREPARE, FREEZE, COMPLETE, PRE_RESTORE, POST_RESTORE };

struct Writer {
    GUID id, instance;
    const WCHAR *name;
    int fails_at = -1, times = 0;
    HRESULT code = S_OK, failure = S_OK;
    VSS_WRITER_STATE state = VSS_WS_STABLE;
    void on(int event);
};

struct Saved {  // a component in a requester's document
    GUID writer, instance;
    VSS_COMPONENT_TYPE kind;
    std::wstring path, name;
    bool told = false, succeeded = false, selected = false;
};

IVssExamineWriterMetadata *metadata_of(const Writer &writer, bool components);
IVssWriterComponentsExt *saved_of(const std::vector<Saved> &document);

struct Requester : Object<IVssBackupComponentsEx3> {  // what is seldom called, in requester.cpp; what never is
    bool restore = false;
    int restoring = 0;  // 1 PreRestore was called, 2 PostRestore
    enum { NO, RUNNING, DONE } prepared = NO, done = NO;
    bool early() { return restore ? !restoring : !prepared; }  // writers were not told of anything
    virtual Saved *find(const GUID &writer, LPCWSTR path, LPCWSTR name) = 0;
    HRESULT told(bool now, const GUID &writer, LPCWSTR path, LPCWSTR name);

    using Path = LPCWSTR;
    using Kind = VSS_COMPONENT_TYPE;
    HRESULT STDMETHODCALLTYPE SetBackupOptions(VSS_ID, Kind, Path, Path, LPCWSTR) override;
    HRESULT STDMETHODCALLTYPE SetPreviousBackupStamp(VSS_ID, Kind, Path, Path, LPCWSTR) override;
    HRESULT STDMETHODCALLTYPE SetAdditionalRestores(VSS_ID, Kind, Path, Path, boolean) override;
    HRESULT STDMETHODCALLTYPE AddRestoreSubcomponent(VSS_ID, Kind, Path, Path, Path, Path, boolean) override;
    HRESULT STDMETHODCALLTYPE AddNewTarget(VSS_ID, Kind, Path, Path, Path, Path, boolean, Path) override;
    HRESULT STDMETHODCALLTYPE AddAlternativeLocationMapping(VSS_ID, Kind, Path, Path, Path, Path, boolean, Path) override;
    HRESULT STDMETHODCALLTYPE RevertToSnapshot(VSS_ID, WINBOOL) override;
    HRESULT STDMETHODCALLTYPE QueryRevertStatus(VSS_PWSZ, IVssAsync **) override;
    HRESULT STDMETHODCALLTYPE BreakSnapshotSet(VSS_ID) override;
    HRESULT STDMETHODCALLTYPE BreakSnapshotSetEx(VSS_ID, DWORD, IVssAsync **) override;
    ABSENT(SetRestoreState, VSS_RESTORE_TYPE)
    ABSENT(SetRangesFilePath, VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR, UINT, LPCWSTR)
    ABSENT(ImportSnapshots, IVssAsync **)
    ABSENT(DisableWriterClasses, const VSS_ID *, UINT)
    ABSENT(EnableWriterClasses, const VSS_ID *, UINT)
    ABSENT(DisableWriterInstances, const VSS_ID *, UINT)
    ABSENT(GetWriterMetadataEx, UINT, VSS_ID *, IVssExamineWriterMetadataEx **)
    ABSENT(SetSelectedForRestoreEx, VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR, boolean, VSS_ID)
    ABSENT(SetAuthoritativeRestore, VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR, boolean)
    ABSENT(SetRollForward, VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR, VSS_ROLLFORWARD_TYPE, LPCWSTR)
    ABSENT(SetRestoreName, VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR, LPCWSTR)
    ABSENT(PreFastRecovery, VSS_ID, DWORD, IVssAsync **)
    ABSENT(FastRecovery, VSS_ID, DWORD, IVssAsync **)
    ABSENT(AddSnapshotToRecoverySet, VSS_ID, DWORD, VSS_PWSZ)
    ABSENT(RecoverSet, DWORD, IVssAsync **)
    ABSENT(GetSessionId, VSS_ID *)
};
