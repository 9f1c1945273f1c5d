// What the libraries of the laboratory share: objects and COM's memory, which are counted, and text.  Compiled
// from mingw-w64's headers; nothing here knows the binding.

#pragma once
#include <windows.h>
#include <oleauto.h>
#include <vss.h>
#include <vswriter.h>
#include <vsbackup.h>
#include <cstdarg>
#include <cstdio>
#include <cstring>

extern LONG live;  // objects

void note(const char *format, ...);  // each library has its own
int allocations();  // pieces of COM's memory that are out: strings and structures; once LabWatch was called
int handles();      // of this process
VSS_PWSZ wide(const WCHAR *text);  // for CoTaskMemFree

struct Text {  // an id, or a wide string as UTF-8
    char text[1024];
    explicit Text(const GUID &id);
    explicit Text(const WCHAR *wide);
};

template <class Interface> struct Object : Interface {
    LONG references = 1;
    Object() { InterlockedIncrement(&live); }
    virtual ~Object() { InterlockedDecrement(&live); }
    ULONG STDMETHODCALLTYPE AddRef() override { return InterlockedIncrement(&references); }
    ULONG STDMETHODCALLTYPE Release() override {
        ULONG left = InterlockedDecrement(&references);
        if (!left) delete this;
        return left;
    }
    HRESULT STDMETHODCALLTYPE QueryInterface(REFIID id, void **out) override {
        *out = id == IID_IUnknown || answers(id) ? this : nullptr;
        if (!*out) return E_NOINTERFACE;
        AddRef();
        return S_OK;
    }
    virtual bool answers(REFIID) { return false; }
};

#define ABSENT(name, ...) HRESULT STDMETHODCALLTYPE name(__VA_ARGS__) override { return E_NOTIMPL; }
