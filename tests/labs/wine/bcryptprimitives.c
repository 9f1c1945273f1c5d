/* bcryptprimitives.dll: the one function that Windows wheels written in Rust import of it.
 * Wine 8 has no such library.  ProcessPrng fills a buffer with random bytes and cannot fail;
 * SystemFunction036 is what RtlGenRandom is exported as (ntsecapi.h). */
#include <windows.h>

BOOLEAN WINAPI SystemFunction036(PVOID buffer, ULONG length);

__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE buffer, SIZE_T length)
{
    while (length) {
        ULONG part = length > 0x40000000 ? 0x40000000 : (ULONG)length;
        if (!SystemFunction036(buffer, part))
            return FALSE;
        buffer += part;
        length -= part;
    }
    return TRUE;
}
