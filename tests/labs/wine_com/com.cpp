// Text, and the counting of what was given out.

#include "com.h"
#include <vector>

LONG live;

Text::Text(const GUID &id) {
    snprintf(text, sizeof text, "%08lx-%04x-%04x-%02x%02x-%02x%02x%02x%02x%02x%02x", id.Data1, id.Data2, id.Data3,
             id.Data4[0], id.Data4[1], id.Data4[2], id.Data4[3], id.Data4[4], id.Data4[5], id.Data4[6], id.Data4[7]);
}

Text::Text(const WCHAR *wide) {
    text[0] = 0;
    if (wide) WideCharToMultiByte(CP_UTF8, 0, wide, -1, text, sizeof text, nullptr, nullptr);
}

VSS_PWSZ wide(const WCHAR *text) {
    size_t size = (wcslen(text) + 1) * sizeof(WCHAR);
    return static_cast<VSS_PWSZ>(memcpy(CoTaskMemAlloc(size), text, size));
}

// IMallocSpy sees every piece of memory that COM gives out, of strings too once oleaut32 caches none.

static LONG pieces = 0;

struct Spy : IMallocSpy {
    ULONG STDMETHODCALLTYPE AddRef() override { return 2; }
    ULONG STDMETHODCALLTYPE Release() override { return 1; }
    HRESULT STDMETHODCALLTYPE QueryInterface(REFIID id, void **out) override {
        *out = id == IID_IUnknown || id == IID_IMallocSpy ? this : nullptr;
        return *out ? S_OK : E_NOINTERFACE;
    }
    SIZE_T STDMETHODCALLTYPE PreAlloc(SIZE_T size) override { return size; }
    void *STDMETHODCALLTYPE PostAlloc(void *made) override {
        if (made) InterlockedIncrement(&pieces);
        return made;
    }
    void *STDMETHODCALLTYPE PreFree(void *old, WINBOOL) override {
        if (old) InterlockedDecrement(&pieces);
        return old;
    }
    void STDMETHODCALLTYPE PostFree(WINBOOL) override {}
    SIZE_T STDMETHODCALLTYPE PreRealloc(void *old, SIZE_T size, void **out, WINBOOL) override {
        *out = old;
        return size;
    }
    void *STDMETHODCALLTYPE PostRealloc(void *made, WINBOOL) override { return made; }
    void *STDMETHODCALLTYPE PreGetSize(void *known, WINBOOL) override { return known; }
    SIZE_T STDMETHODCALLTYPE PostGetSize(SIZE_T size, WINBOOL) override { return size; }
    void *STDMETHODCALLTYPE PreDidAlloc(void *known, WINBOOL) override { return known; }
    int STDMETHODCALLTYPE PostDidAlloc(void *, WINBOOL, int answer) override { return answer; }
    void STDMETHODCALLTYPE PreHeapMinimize() override {}
    void STDMETHODCALLTYPE PostHeapMinimize() override {}
};

static Spy spy;

int allocations() { return pieces; }

extern "C" int WINAPI LabWatch() {
    auto forget = reinterpret_cast<void(WINAPI *)()>(
        reinterpret_cast<void *>(GetProcAddress(GetModuleHandleA("oleaut32"), "SetOaNoCache")));
    if (!forget) return 0;
    forget();
    if (FAILED(CoRegisterMallocSpy(&spy))) return 0;
    LONG before = pieces;  // that it sees what it has to see
    BSTR text = SysAllocString(L"x");
    void *memory = CoTaskMemAlloc(1);
    LONG between = pieces;
    SysFreeString(text);
    CoTaskMemFree(memory);
    return between == before + 2 && pieces == before;
}

// GetProcessHandleCount says nothing under Wine; the list of all handles does.
int handles() {
    struct Entry {
        ULONG owner;
        BYTE kind, flags;
        USHORT value;
        void *object;
        ULONG access;
    };
    struct List {
        ULONG count;
        Entry entries[1];
    };
    auto query = reinterpret_cast<LONG(WINAPI *)(int, void *, ULONG, ULONG *)>(
        reinterpret_cast<void *>(GetProcAddress(GetModuleHandleA("ntdll"), "NtQuerySystemInformation")));
    std::vector<char> room(1 << 20);
    ULONG needed = 0;
    if (!query || query(16, room.data(), room.size(), &needed)) return -1;
    auto list = reinterpret_cast<const List *>(room.data());
    int own = 0;
    for (ULONG index = 0; index < list->count; index++) own += list->entries[index].owner == GetCurrentProcessId();
    return own;
}
