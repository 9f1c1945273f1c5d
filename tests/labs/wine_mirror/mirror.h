// What the generated mirror of VSS's interfaces is made of: the rule of tests/support/mirror.py, by which
// values follow from a path, and how values are written down.

#include "../wine_com/com.h"
#include <msxml.h>
#include <vsmgmt.h>
#include <vsadmin.h>
#include <winevt.h>
#include <winsvc.h>
#include <string>
#include <type_traits>

static int turn;            // the round
static std::string record;  // of all calls since it was asked for

struct Path {
    std::string text;
    Path operator+(const char *member) const { return {text + "." + member}; }
    std::string marked() const { return text + "#" + std::to_string(turn); }
    ULONGLONG mark(const char *half = "") const {
        ULONGLONG value = 0xcbf29ce484222325;
        for (unsigned char byte : std::to_string(turn) + "#" + text + half) value = (value ^ byte) * 0x100000001b3;
        value = (value ^ value >> 32) * 0x9e3779b97f4a7c15;
        return value ^ value >> 32;
    }
};

static std::wstring words(const Path &path, bool counted) {
    std::string marked = path.marked();
    std::wstring made(marked.begin(), marked.end());
    if (counted) made += L'\0';
    return made + L"\u00e4\U0001F400";
}

static void put(const std::string &text) { record += "|" + text; }

static std::string hex(const void *from, size_t size) {
    std::string made;
    char digits[3];
    for (size_t index = 0; index < size; index++) {
        snprintf(digits, sizeof digits, "%02x", static_cast<const unsigned char *>(from)[index]);
        made += digits;
    }
    return made;
}

template <class T> void put_number(T value) {
    char text[32];
    ULONGLONG wide = 0;
    memcpy(&wide, &value, sizeof value);
    snprintf(text, sizeof text, "%d:%0*llx", int(sizeof value), int(2 * sizeof value), wide);
    put(text);
}

template <class T> void put_pointer(T *value) { put_number(value); }
static inline void put_flag(boolean value) { put(std::string("flag:") + (value == 0 ? "0" : value == 1 ? "1" : "neither")); }
static inline void put_id(const GUID &id) { put("id:" + hex(&id, sizeof id)); }
static inline void put_text(LPCWSTR text) { put("text:" + hex(text, wcslen(text) * sizeof(WCHAR))); }
static inline void put_counted(BSTR text) { put("text:" + hex(text, SysStringLen(text) * sizeof(WCHAR))); }

template <class T> void give_number(const Path &path, T *to) {
    ULONGLONG value = path.mark();
    memcpy(to, &value, sizeof *to);
}

template <class T> void give_pointer(const Path &path, T **to) { give_number(path, to); }
static inline void give_flag(const Path &path, boolean *to) { *to = path.mark() & 1; }

static inline void give_id(const Path &path, GUID *to) {
    ULONGLONG halves[] = {path.mark(), path.mark("'")};
    memcpy(to, halves, sizeof *to);
}

static inline void give_text(const Path &path, VSS_PWSZ *to) {
    std::wstring text = words(path, false);
    size_t size = (text.size() + 1) * sizeof(WCHAR);
    *to = static_cast<VSS_PWSZ>(memcpy(CoTaskMemAlloc(size), text.c_str(), size));
}

static inline void give_counted(const Path &path, BSTR *to) {
    std::wstring text = words(path, true);
    *to = SysAllocStringLen(text.data(), text.size());
}

static inline VSS_COMPONENTINFO *block(PVSSCOMPONENTINFO *to) {
    auto made = static_cast<VSS_COMPONENTINFO *>(CoTaskMemAlloc(sizeof(VSS_COMPONENTINFO)));
    *to = made;
    return made;
}

// One call; its name is the compiler's.
struct Call {
    Path path;
    explicit Call(const std::string &name) : path{name} { record += name; }
    Call(const char *interface_name, const char *method) : Call(std::string(interface_name) + "." + method) {}
    ~Call() { record += "\n"; }
    Path operator[](int index) const { return path + std::to_string(index).c_str(); }
    template <class T> T result() const {
        T made;
        give_number(path + "result", &made);
        return made;
    }
};

// A function of a library, with the type that the headers give it.
extern const char *const functions[];

template <int Index, class Type> struct Echo;
template <int Index, class Result, class... Arguments> struct Echo<Index, Result(WINAPI *)(Arguments...)> {
    template <class T> static void one(T value) {
        if constexpr (std::is_reference_v<T>) put_number(&value);
        else put_number(value);
    }
    static Result WINAPI call(Arguments... values) {
        Call call{functions[Index]};
        (one<Arguments>(values), ...);
        if constexpr (!std::is_void_v<Result>) {
            Result made = call.template result<Result>();
            put_number(made);
            return made;
        }
    }
};

extern "C" void *WINAPI MirrorOf(const char *name);

extern "C" void WINAPI MirrorTurn(int number) { turn = number; }

extern "C" int WINAPI MirrorLeft() { return allocations(); }

extern "C" const char *WINAPI MirrorRecord() {
    static std::string last;
    last.swap(record);
    record.clear();
    return last.c_str();
}

extern "C" HRESULT WINAPI CreateVssBackupComponentsInternal(IVssBackupComponents **out) {
    *out = static_cast<IVssBackupComponents *>(MirrorOf("IVssBackupComponents"));
    return S_OK;
}

extern "C" void WINAPI VssFreeSnapshotPropertiesInternal(VSS_SNAPSHOT_PROP *given) {
    for (VSS_PWSZ text : {given->m_pwszSnapshotDeviceObject, given->m_pwszOriginalVolumeName, given->m_pwszOriginatingMachine,
                          given->m_pwszServiceMachine, given->m_pwszExposedName, given->m_pwszExposedPath})
        CoTaskMemFree(text);
}
