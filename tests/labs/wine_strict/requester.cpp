// What requesters seldom call: options, stamps and places of components, volumes that are reverted, sets that
// are broken.  After the pages of these methods, of ShouldBlockRevert and CreateVssExamineWriterMetadata.

#include "lab.h"

static std::wstring reverting;     // a volume
static bool in_use, blocks;

void forget_reverting() {
    reverting.clear();
    in_use = blocks = false;
}

// Something is said of a component: the time for it, and whether there is such a component.
HRESULT Requester::told(bool now, const GUID &writer, LPCWSTR path, LPCWSTR name) {
    if (!now) return VSS_E_BAD_STATE;
    return find(writer, path, name) ? S_OK : VSS_E_OBJECT_NOT_FOUND;
}

HRESULT Requester::SetBackupOptions(VSS_ID writer, Kind, Path path, Path name, LPCWSTR options) {
    CALLED(SetBackupOptions)
    note("  %s: %s", Text(name).text, Text(options).text);
    return told(early() && !restore, writer, path, name);
}

HRESULT Requester::SetPreviousBackupStamp(VSS_ID writer, Kind, Path path, Path name, LPCWSTR stamp) {
    CALLED(SetPreviousBackupStamp)
    note("  %s: %s", Text(name).text, Text(stamp).text);
    return told(early() && !restore, writer, path, name);
}

HRESULT Requester::SetAdditionalRestores(VSS_ID writer, Kind, Path path, Path name, boolean more) {
    CALLED(SetAdditionalRestores)
    note("  %s: %d", Text(name).text, more);
    return told(early() && restore, writer, path, name);
}

HRESULT Requester::AddRestoreSubcomponent(VSS_ID writer, Kind, Path path, Path name, Path below, Path part, boolean) {
    CALLED(AddRestoreSubcomponent)
    note("  %s: %s\\%s", Text(name).text, Text(below).text, Text(part).text);
    return told(early() && restore, writer, path, name);
}

HRESULT Requester::AddNewTarget(VSS_ID writer, Kind, Path path, Path name, Path folder, Path spec, boolean recursive,
                                Path place) {
    CALLED(AddNewTarget)
    note("  %s: %s %s %d to %s", Text(name).text, Text(folder).text, Text(spec).text, recursive, Text(place).text);
    return told(early() && restore, writer, path, name);
}

HRESULT Requester::AddAlternativeLocationMapping(VSS_ID writer, Kind, Path path, Path name, Path folder, Path spec,
                                                 boolean recursive, Path place) {
    CALLED(AddAlternativeLocationMapping)
    note("  %s: %s %s %d to %s", Text(name).text, Text(folder).text, Text(spec).text, recursive, Text(place).text);
    return told(restore && restoring < 2, writer, path, name);
}

HRESULT Requester::RevertToSnapshot(VSS_ID id, WINBOOL force) {
    CALLED(RevertToSnapshot)
    note("  %d", force);
    for (Shadow &shadow : shadows) if (shadow.id == id) {
        if (!reverting.empty()) return VSS_E_REVERT_IN_PROGRESS;
        if (!(shadow.context & VSS_VOLSNAP_ATTR_PERSISTENT)) return VSS_E_UNSUPPORTED_CONTEXT;
        if (in_use && !force) return VSS_E_VOLUME_IN_USE;
        reverting = shadow.volume;
        return S_OK;
    }
    return VSS_E_OBJECT_NOT_FOUND;
}

HRESULT Requester::QueryRevertStatus(VSS_PWSZ volume, IVssAsync **out) {
    CALLED(QueryRevertStatus)
    note("  %s", reverting == volume ? "is reverted" : "is not");
    return begin("QueryRevertStatus", out, [] { reverting.clear(); });
}

static HRESULT broken(const GUID &set) {
    size_t before = shadows.size();
    for (size_t index = 0; index < shadows.size();)
        if (shadows[index].set == set) shadows.erase(shadows.begin() + index);
        else index++;
    return shadows.size() < before ? S_OK : VSS_E_OBJECT_NOT_FOUND;
}

HRESULT Requester::BreakSnapshotSet(VSS_ID set) {
    CALLED(BreakSnapshotSet)
    return broken(set);
}

HRESULT Requester::BreakSnapshotSetEx(VSS_ID set, DWORD flags, IVssAsync **out) {
    CALLED(BreakSnapshotSetEx)
    note("  %#lx", flags);
    return begin("BreakSnapshotSetEx", out, [set] { broken(set); });
}

extern "C" HRESULT WINAPI ShouldBlockRevertInternal(LPCWSTR, boolean *out) {
    CALLED(ShouldBlockRevert)
    *out = blocks;
    return S_OK;
}

extern "C" HRESULT WINAPI CreateVssExamineWriterMetadataInternal(BSTR xml, IVssExamineWriterMetadata **out) {
    CALLED(CreateVssExamineWriterMetadata)
    note("  %u units", SysStringLen(xml));
    static const Writer writer = {{0x11111111, 0x2222, 0x3333, {0x44, 0x44, 1, 2, 3, 4, 5, 6}}, {0xa1}, L"Lab Writer"};
    *out = metadata_of(writer, true);
    return S_OK;
}

extern "C" void WINAPI LabInUse(int on) { in_use = on; }

extern "C" void WINAPI LabBlocks(int on) { blocks = on; }
