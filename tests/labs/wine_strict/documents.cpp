// Writers' metadata, requesters' documents, and the journal.

#include "lab.h"

void note(const char *format, ...) {
    char line[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    journal += line;
    journal += '\n';
}

void forbid(const char *format, ...) {
    char line[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    violations++;
    note("FORBIDDEN: %s", line);
}

struct Files : Object<IVssWMFiledesc> {
    HRESULT STDMETHODCALLTYPE GetPath(BSTR *out) override {
        MAY_FAIL(GetPath)
        *out = SysAllocString(L"%SystemDrive%\\lab\\data");
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE GetFilespec(BSTR *out) override {
        MAY_FAIL(GetFilespec)
        *out = SysAllocString(L"*.mdf");
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE GetRecursive(boolean *out) override {
        MAY_FAIL(GetRecursive)
        *out = TRUE;
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE GetAlternateLocation(BSTR *out) override {
        MAY_FAIL(GetAlternateLocation)
        *out = nullptr;
        return S_FALSE;
    }
    ABSENT(GetBackupTypeMask, DWORD *)
};

struct Dependency : Object<IVssWMDependency> {
    GUID writer;
    HRESULT STDMETHODCALLTYPE GetWriterId(VSS_ID *out) override {
        MAY_FAIL(GetWriterId)
        *out = writer;
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE GetLogicalPath(BSTR *out) override {
        MAY_FAIL(GetLogicalPath)
        *out = nullptr;
        return S_FALSE;
    }
    HRESULT STDMETHODCALLTYPE GetComponentName(BSTR *out) override {
        MAY_FAIL(GetComponentName)
        *out = SysAllocString(L"whole");
        return S_OK;
    }
};

struct Part : Object<IVssWMComponent> {
    const Writer &writer;
    bool whole;  // "whole" can be chosen and stands for "whole\part"; "needy" depends on it
    int index;
    Part(const Writer &writer, int index) : writer(writer), index(index) {}
    HRESULT STDMETHODCALLTYPE GetComponentInfo(PVSSCOMPONENTINFO *out) override {
        MAY_FAIL(GetComponentInfo)
        static const WCHAR *const paths[] = {nullptr, L"whole", L"up"}, *const names[] = {L"whole", L"part", L"needy"};
        auto info = static_cast<VSS_COMPONENTINFO *>(CoTaskMemAlloc(sizeof(VSS_COMPONENTINFO)));
        memset(info, 0, sizeof *info);
        info->type = index == 2 ? VSS_CT_DATABASE : VSS_CT_FILEGROUP;
        info->bstrLogicalPath = paths[index] ? SysAllocString(paths[index]) : nullptr;
        info->bstrComponentName = SysAllocString(names[index]);
        info->bSelectable = index != 1;
        info->bSelectableForRestore = index == 1;
        info->cFileCount = index != 2;
        info->cDatabases = info->cLogFiles = info->cDependencies = index == 2;
        *out = info;
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE FreeComponentInfo(PVSSCOMPONENTINFO info) override {
        SysFreeString(info->bstrLogicalPath);
        SysFreeString(info->bstrComponentName);
        CoTaskMemFree(const_cast<VSS_COMPONENTINFO *>(info));
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE GetFile(UINT, IVssWMFiledesc **out) override {
        MAY_FAIL(GetFile)
        *out = new Files;
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE GetDatabaseFile(UINT, IVssWMFiledesc **out) override {
        MAY_FAIL(GetDatabaseFile)
        *out = new Files;
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE GetDatabaseLogFile(UINT, IVssWMFiledesc **out) override {
        MAY_FAIL(GetDatabaseLogFile)
        *out = new Files;
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE GetDependency(UINT, IVssWMDependency **out) override {
        MAY_FAIL(GetDependency)
        auto made = new Dependency;
        made->writer = writer.id;
        *out = made;
        return S_OK;
    }
};

struct Metadata : Object<IVssExamineWriterMetadata> {
    const Writer &writer;
    bool components;
    Metadata(const Writer &writer, bool components) : writer(writer), components(components) {}
    HRESULT STDMETHODCALLTYPE GetIdentity(VSS_ID *instance, VSS_ID *id, BSTR *name, VSS_USAGE_TYPE *usage,
                                          VSS_SOURCE_TYPE *source) override {
        MAY_FAIL(GetIdentity)
        *instance = writer.instance;
        *id = writer.id;
        *name = SysAllocString(writer.name);
        *usage = VSS_UT_USERDATA;
        *source = VSS_ST_OTHER;
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE GetFileCounts(UINT *included, UINT *excluded, UINT *count) override {
        MAY_FAIL(GetFileCounts)
        *included = 0;
        *excluded = components;
        *count = components ? 3 : 0;
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE GetComponent(UINT index, IVssWMComponent **out) override {
        MAY_FAIL(GetComponent)
        *out = new Part(writer, index);
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE SaveAsXML(BSTR *xml) override {
        if (HRESULT code = fault("IVssExamineWriterMetadata::SaveAsXML", 0)) return code;
        *xml = SysAllocString(L"<writer/>");
        return S_OK;
    }
    ABSENT(GetIncludeFile, UINT, IVssWMFiledesc **)
    HRESULT STDMETHODCALLTYPE GetExcludeFile(UINT, IVssWMFiledesc **out) override {
        MAY_FAIL(GetExcludeFile)
        *out = new Files;
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE GetAlternateLocationMapping(UINT, IVssWMFiledesc **out) override {
        MAY_FAIL(GetAlternateLocationMapping)
        *out = new Files;
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE GetRestoreMethod(VSS_RESTOREMETHOD_ENUM *method, BSTR *service, BSTR *procedure,
                                               VSS_WRITERRESTORE_ENUM *called, boolean *reboot, UINT *mappings) override {
        MAY_FAIL(GetRestoreMethod)
        *method = VSS_RME_STOP_RESTORE_START;
        *service = SysAllocString(L"LabService");
        *procedure = nullptr;
        *called = VSS_WRE_ALWAYS;
        *reboot = TRUE;
        *mappings = 1;
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE GetBackupSchema(DWORD *out) override {
        MAY_FAIL(GetBackupSchema)
        *out = VSS_BS_DIFFERENTIAL | VSS_BS_INCREMENTAL;
        return S_OK;
    }
    ABSENT(GetDocument, IXMLDOMDocument **)
    ABSENT(LoadFromXML, BSTR)
};

IVssExamineWriterMetadata *metadata_of(const Writer &writer, bool components) { return new Metadata(writer, components); }

struct SavedPart : Object<IVssComponent> {
    Saved saved;
    explicit SavedPart(const Saved &saved) : saved(saved) {}
    bool directed() { return saved.name == L"part"; }
    static HRESULT text(const std::wstring &from, BSTR *out) {
        *out = from.empty() ? nullptr : SysAllocString(from.c_str());
        return from.empty() ? S_FALSE : S_OK;
    }
    HRESULT STDMETHODCALLTYPE GetLogicalPath(BSTR *out) override {
        MAY_FAIL(GetLogicalPath)
        return text(saved.path, out);
    }
    HRESULT STDMETHODCALLTYPE GetComponentType(VSS_COMPONENT_TYPE *out) override {
        MAY_FAIL(GetComponentType)
        return *out = saved.kind, S_OK;
    }
    HRESULT STDMETHODCALLTYPE GetComponentName(BSTR *out) override {
        MAY_FAIL(GetComponentName)
        return text(saved.name, out);
    }
    HRESULT STDMETHODCALLTYPE GetBackupSucceeded(boolean *out) override {
        MAY_FAIL(GetBackupSucceeded)
        return *out = saved.succeeded, S_OK;
    }
    HRESULT STDMETHODCALLTYPE GetRestoreTarget(VSS_RESTORE_TARGET *out) override {
        MAY_FAIL(GetRestoreTarget)
        return *out = directed() ? VSS_RT_DIRECTED : VSS_RT_ORIGINAL, S_OK;
    }
    HRESULT STDMETHODCALLTYPE GetPreRestoreFailureMsg(BSTR *out) override {
        MAY_FAIL(GetPreRestoreFailureMsg)
        return text(L"", out);
    }
    HRESULT STDMETHODCALLTYPE GetPostRestoreFailureMsg(BSTR *out) override {
        MAY_FAIL(GetPostRestoreFailureMsg)
        return text(L"", out);
    }
    HRESULT STDMETHODCALLTYPE GetBackupStamp(BSTR *out) override {
        MAY_FAIL(GetBackupStamp)
        return text(L"stamp of " + saved.name, out);
    }
    HRESULT STDMETHODCALLTYPE GetDirectedTargetCount(UINT *out) override {
        MAY_FAIL(GetDirectedTargetCount)
        return *out = directed(), S_OK;
    }
    HRESULT STDMETHODCALLTYPE GetDirectedTarget(UINT, BSTR *path, BSTR *name, BSTR *ranges, BSTR *new_path, BSTR *new_name,
                                                BSTR *new_ranges) override {
        MAY_FAIL(GetDirectedTarget)
        text(L"C:\\old", path), text(L"a.mdf", name), text(L"0x10:16, 64:1", ranges);
        text(L"D:\\new", new_path), text(L"b.mdf", new_name), text(L"0:16,0x20:1", new_ranges);
        return S_OK;
    }
    ABSENT(GetAlternateLocationMappingCount, UINT *)
    ABSENT(GetAlternateLocationMapping, UINT, IVssWMFiledesc **)
    ABSENT(SetBackupMetadata, LPCWSTR)
    ABSENT(GetBackupMetadata, BSTR *)
    ABSENT(AddPartialFile, LPCWSTR, LPCWSTR, LPCWSTR, LPCWSTR)
    ABSENT(GetPartialFileCount, UINT *)
    ABSENT(GetPartialFile, UINT, BSTR *, BSTR *, BSTR *, BSTR *)
    ABSENT(IsSelectedForRestore, boolean *)
    ABSENT(GetAdditionalRestores, boolean *)
    ABSENT(GetNewTargetCount, UINT *)
    ABSENT(GetNewTarget, UINT, IVssWMFiledesc **)
    ABSENT(AddDirectedTarget, LPCWSTR, LPCWSTR, LPCWSTR, LPCWSTR, LPCWSTR, LPCWSTR)
    ABSENT(SetRestoreMetadata, LPCWSTR)
    ABSENT(GetRestoreMetadata, BSTR *)
    ABSENT(SetRestoreTarget, VSS_RESTORE_TARGET)
    ABSENT(SetPreRestoreFailureMsg, LPCWSTR)
    ABSENT(SetPostRestoreFailureMsg, LPCWSTR)
    ABSENT(SetBackupStamp, LPCWSTR)
    ABSENT(GetPreviousBackupStamp, BSTR *)
    ABSENT(GetBackupOptions, BSTR *)
    ABSENT(GetRestoreOptions, BSTR *)
    ABSENT(GetRestoreSubcomponentCount, UINT *)
    ABSENT(GetRestoreSubcomponent, UINT, BSTR *, BSTR *, boolean *)
    ABSENT(GetFileRestoreStatus, VSS_FILE_RESTORE_STATUS *)
    ABSENT(AddDifferencedFilesByLastModifyTime, LPCWSTR, LPCWSTR, WINBOOL, FILETIME)
    ABSENT(AddDifferencedFilesByLastModifyLSN, LPCWSTR, LPCWSTR, WINBOOL, BSTR)
    ABSENT(GetDifferencedFilesCount, UINT *)
    ABSENT(GetDifferencedFile, UINT, BSTR *, BSTR *, WINBOOL *, BSTR *, FILETIME *)
};

// Microsoft's IVssWriterComponentsExt has IVssWriterComponents and IUnknown as bases; mingw-w64's header, made by
// WIDL, leaves the second out.  So both stand here: two vtables, released through the second.
struct OfWriter : IVssWriterComponents, IUnknown {
    LONG references = 1;
    std::vector<Saved> document;
    OfWriter() { InterlockedIncrement(&live); }
    virtual ~OfWriter() { InterlockedDecrement(&live); }
    ULONG STDMETHODCALLTYPE AddRef() override { return InterlockedIncrement(&references); }
    ULONG STDMETHODCALLTYPE Release() override {
        ULONG left = InterlockedDecrement(&references);
        if (!left) delete this;
        return left;
    }
    HRESULT STDMETHODCALLTYPE QueryInterface(REFIID, void **out) override {
        *out = nullptr;
        return E_NOINTERFACE;
    }
    HRESULT STDMETHODCALLTYPE GetComponentCount(UINT *out) override {
        MAY_FAIL(GetComponentCount)
        return *out = document.size(), S_OK;
    }
    HRESULT STDMETHODCALLTYPE GetWriterInfo(VSS_ID *instance, VSS_ID *writer) override {
        MAY_FAIL(GetWriterInfo)
        *instance = document[0].instance;
        *writer = document[0].writer;
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE GetComponent(UINT index, IVssComponent **out) override {
        MAY_FAIL(GetComponent)
        *out = new SavedPart(document[index]);
        return S_OK;
    }
};

IVssWriterComponentsExt *saved_of(const std::vector<Saved> &document) {
    auto made = new OfWriter;
    made->document = document;
    return reinterpret_cast<IVssWriterComponentsExt *>(static_cast<IVssWriterComponents *>(made));
}
