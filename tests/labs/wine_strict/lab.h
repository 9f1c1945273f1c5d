// What the laboratory's strict vssapi.dll is made of: its journal, and the documents of writers and requesters.

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
bool has_shadow_copies(const std::wstring &volume);
void forget_storage();

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

struct Requester : Object<IVssBackupComponentsEx3> {  // what no test needs
    ABSENT(SetRestoreState, VSS_RESTORE_TYPE)
    ABSENT(SetBackupOptions, VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR, LPCWSTR)
    ABSENT(SetAdditionalRestores, VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR, boolean)
    ABSENT(SetPreviousBackupStamp, VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR, LPCWSTR)
    ABSENT(AddAlternativeLocationMapping, VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR, LPCWSTR, LPCWSTR, boolean, LPCWSTR)
    ABSENT(AddRestoreSubcomponent, VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR, LPCWSTR, LPCWSTR, boolean)
    ABSENT(AddNewTarget, VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR, LPCWSTR, LPCWSTR, boolean, LPCWSTR)
    ABSENT(SetRangesFilePath, VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR, UINT, LPCWSTR)
    ABSENT(ImportSnapshots, IVssAsync **)
    ABSENT(BreakSnapshotSet, VSS_ID)
    ABSENT(DisableWriterClasses, const VSS_ID *, UINT)
    ABSENT(EnableWriterClasses, const VSS_ID *, UINT)
    ABSENT(DisableWriterInstances, const VSS_ID *, UINT)
    ABSENT(RevertToSnapshot, VSS_ID, BOOL)
    ABSENT(QueryRevertStatus, VSS_PWSZ, IVssAsync **)
    ABSENT(GetWriterMetadataEx, UINT, VSS_ID *, IVssExamineWriterMetadataEx **)
    ABSENT(SetSelectedForRestoreEx, VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR, boolean, VSS_ID)
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
