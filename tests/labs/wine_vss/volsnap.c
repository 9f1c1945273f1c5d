/* A volume driver for the laboratory, as strict as raw volumes are: \Device\HarddiskVolume3, its shadow
 * copy \Device\HarddiskVolumeShadowCopy7, and \Device\HarddiskVolume9, which can be written once it is locked.
 *
 * LIVE holds the first volume, which is written through the driver.  Once TAKE was called, the old bytes
 * of a cluster go to KEPT before it is overwritten, and the shadow copy is read from there or, where
 * nothing was overwritten, from LIVE.  What was free then (a clear bit in BITMAP) is not preserved and
 * shows what LIVE holds by now.  While LOST exists the shadow copy is gone; it is made when more bytes
 * were read than the file LOSE_AFTER says.  TARGET is the other volume; while IN_USE exists it cannot be
 * locked.  The names are paths of files, given to the compiler, as is SECTOR.
 *
 * Reads and writes are pending until one of WORKERS threads has done them; MOST tells how many were
 * so at once. */

#include <ntddk.h>
#include <ntdddisk.h>

#ifndef SECTOR
#define SECTOR 512
#endif
#define CLUSTER 4096
#define WORKERS 4
#define FSCTL(function, method) CTL_CODE(FILE_DEVICE_FILE_SYSTEM, function, method, FILE_ANY_ACCESS)
#define LOCK_VOLUME FSCTL(6, METHOD_BUFFERED)
#define DISMOUNT_VOLUME FSCTL(8, METHOD_BUFFERED)
#define GET_NTFS_VOLUME_DATA FSCTL(25, METHOD_BUFFERED)
#define GET_VOLUME_BITMAP FSCTL(27, METHOD_NEITHER)
#define ALLOW_EXTENDED_DASD_IO FSCTL(32, METHOD_NEITHER)
#define MOST CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define TAKE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define COPIED CTL_CODE(FILE_DEVICE_UNKNOWN, 0x803, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define MOST_CLUSTERS (1 << 18) /* of LIVE: 1 GiB */
#define SOME_BITS 512 /* bytes of bitmap at a time: it has to be asked for in pages */

typedef struct {
    LONGLONG serial, sectors, clusters, free, reserved;
    ULONG sector, cluster, record, clusters_per_record;
    LONGLONG mft[5];
} NTFS_DATA;

static DEVICE_OBJECT *shadow_device, *target_device, *live_device;
static KSEMAPHORE copying; /* held for the instant, and from before a cluster is kept until it is overwritten */
static BOOLEAN taken;
static UCHAR kept[MOST_CLUSTERS / 8]; /* clusters whose bytes at the instant are in KEPT */
static LONG copied;
static FILE_OBJECT *holder; /* who has locked the target */
static LIST_ENTRY queue;
static KSPIN_LOCK guard;
static KSEMAPHORE waiting;
static KEVENT ended;
static LONG under_way, most, workers;
static LONGLONG served;
static BOOLEAN stopping;

static HANDLE open_as(const WCHAR *path, ACCESS_MASK access, ULONG how) {
    UNICODE_STRING name;
    OBJECT_ATTRIBUTES attributes;
    IO_STATUS_BLOCK status;
    HANDLE file;
    RtlInitUnicodeString(&name, path);
    InitializeObjectAttributes(&attributes, &name, OBJ_CASE_INSENSITIVE | OBJ_KERNEL_HANDLE, NULL, NULL);
    if (ZwCreateFile(&file, access | SYNCHRONIZE, &attributes, &status, NULL, 0,
                     FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, how,
                     FILE_SYNCHRONOUS_IO_NONALERT, NULL, 0))
        return NULL;
    return file;
}

static HANDLE open_file(const WCHAR *path) { return open_as(path, GENERIC_READ, FILE_OPEN); }

static LONGLONG size_of(HANDLE file) {
    FILE_STANDARD_INFORMATION found = {0};
    IO_STATUS_BLOCK status;
    ZwQueryInformationFile(file, &status, &found, sizeof found, FileStandardInformation);
    return found.EndOfFile.QuadPart;
}

static ULONG read_at(HANDLE file, void *to, ULONG count, LONGLONG offset) {
    IO_STATUS_BLOCK status = {{0}};
    LARGE_INTEGER place;
    place.QuadPart = offset;
    if (ZwReadFile(file, NULL, NULL, NULL, &status, to, count, &place, NULL)) return 0;
    return (ULONG)status.Information;
}

static BOOLEAN write_at(HANDLE file, void *from, ULONG count, LONGLONG offset) {
    IO_STATUS_BLOCK status = {{0}};
    LARGE_INTEGER place;
    place.QuadPart = offset;
    return !ZwWriteFile(file, NULL, NULL, NULL, &status, from, count, &place, NULL) && status.Information == count;
}

static void enter(void) { KeWaitForSingleObject(&copying, Executive, KernelMode, FALSE, NULL); }

static void leave(void) { KeReleaseSemaphore(&copying, IO_NO_INCREMENT, 1, FALSE); }

static BOOLEAN exists(const WCHAR *path) {
    HANDLE file = open_file(path);
    if (!file) return FALSE;
    ZwClose(file);
    return TRUE;
}

/* Count what is read, and lose the shadow copy when it was enough. */
static void serve(ULONG length) {
    HANDLE file = open_file(LOSE_AFTER);
    char text[24] = {0};
    LONGLONG limit = 0;
    int index;
    if (!file) {
        served = 0;
        return;
    }
    read_at(file, text, sizeof text - 1, 0);
    ZwClose(file);
    for (index = 0; text[index] >= '0' && text[index] <= '9'; index++) limit = limit * 10 + text[index] - '0';
    served += length;
    if (served > limit && (file = open_as(LOST, GENERIC_WRITE, FILE_OPEN_IF))) ZwClose(file);
}

static NTSTATUS target_io(IRP *irp, IO_STACK_LOCATION *place) {
    BOOLEAN writes = place->MajorFunction == IRP_MJ_WRITE;
    ULONG length = writes ? place->Parameters.Write.Length : place->Parameters.Read.Length, done = 0;
    LARGE_INTEGER offset = writes ? place->Parameters.Write.ByteOffset : place->Parameters.Read.ByteOffset;
    IO_STATUS_BLOCK status = {{0}};
    HANDLE file;
    if (offset.QuadPart % SECTOR || length % SECTOR || !length) return STATUS_INVALID_PARAMETER;
    if (writes && holder != place->FileObject) return STATUS_ACCESS_DENIED;
    file = open_as(TARGET, writes ? GENERIC_READ | GENERIC_WRITE : GENERIC_READ, FILE_OPEN);
    if (!file) return STATUS_DEVICE_DOES_NOT_EXIST;
    if (offset.QuadPart + length > size_of(file)) {
        ZwClose(file);
        return STATUS_INVALID_PARAMETER;
    }
    if (!writes)
        done = read_at(file, irp->UserBuffer, length, offset.QuadPart);
    else if (!ZwWriteFile(file, NULL, NULL, NULL, &status, irp->UserBuffer, length, &offset, NULL))
        done = (ULONG)status.Information;
    ZwClose(file);
    irp->IoStatus.Information = done;
    return done == length ? STATUS_SUCCESS : STATUS_DEVICE_DATA_ERROR;
}

/* The instant: from here on nothing of LIVE is overwritten before it is kept. */
static NTSTATUS take(void) {
    HANDLE file = open_as(KEPT, GENERIC_WRITE, FILE_OVERWRITE_IF);
    if (!file) return STATUS_DISK_FULL;
    ZwClose(file);
    enter();
    RtlZeroMemory(kept, sizeof kept);
    copied = 0;
    taken = TRUE;
    leave();
    return STATUS_SUCCESS;
}

static BOOLEAN in_use(HANDLE bits, LONGLONG cluster, LONGLONG clusters) {
    UCHAR byte = 0xff; /* what is behind the last cluster is no free space */
    if (cluster < clusters) read_at(bits, &byte, 1, cluster / 8);
    return byte >> cluster % 8 & 1;
}

/* Keep what a write is about to change, as it was at the instant. */
static BOOLEAN keep(HANDLE live, LONGLONG size, LONGLONG offset, ULONG length) {
    HANDLE bits = open_file(BITMAP), to = open_as(KEPT, GENERIC_WRITE, FILE_OPEN);
    BOOLEAN good = TRUE;
    LONGLONG cluster;
    for (cluster = offset / CLUSTER; good && cluster * CLUSTER < offset + length; cluster++) {
        static UCHAR old[CLUSTER]; /* of whoever holds `copying`; a stack has less */
        ULONG count;
        if (kept[cluster / 8] >> cluster % 8 & 1 || !in_use(bits, cluster, size / CLUSTER)) continue;
        count = read_at(live, old, CLUSTER, cluster * CLUSTER);
        good = count && write_at(to, old, count, cluster * CLUSTER);
        kept[cluster / 8] |= (UCHAR)(1 << cluster % 8);
        copied++;
    }
    ZwClose(bits), ZwClose(to);
    return good;
}

static NTSTATUS live_io(IRP *irp, IO_STACK_LOCATION *place) {
    BOOLEAN writes = place->MajorFunction == IRP_MJ_WRITE, good = TRUE;
    ULONG length = writes ? place->Parameters.Write.Length : place->Parameters.Read.Length;
    LONGLONG offset = writes ? place->Parameters.Write.ByteOffset.QuadPart : place->Parameters.Read.ByteOffset.QuadPart;
    HANDLE file = open_as(LIVE, GENERIC_READ | GENERIC_WRITE, FILE_OPEN);
    LONGLONG size = size_of(file);
    if (offset % SECTOR || length % SECTOR || !length || offset + length > size || size > MOST_CLUSTERS * (LONGLONG)CLUSTER) {
        ZwClose(file);
        return STATUS_INVALID_PARAMETER;
    }
    enter();
    if (!writes)
        good = read_at(file, irp->UserBuffer, length, offset) == length;
    else
        good = (!taken || keep(file, size, offset, length)) && write_at(file, irp->UserBuffer, length, offset);
    leave();
    ZwClose(file);
    irp->IoStatus.Information = good ? length : 0;
    return good ? STATUS_SUCCESS : STATUS_DEVICE_DATA_ERROR;
}

static NTSTATUS read_volume(IRP *irp, IO_STACK_LOCATION *place) {
    LONGLONG offset = place->Parameters.Read.ByteOffset.QuadPart;
    ULONG length = place->Parameters.Read.Length, done = 0;
    UCHAR *to = irp->UserBuffer;
    HANDLE old, live;
    LONGLONG size, end;
    if (exists(LOST) || !taken) return STATUS_DEVICE_DOES_NOT_EXIST;
    serve(length);
    /* Not the address: Wine hands a buffer of its own to the driver. */
    if (offset % SECTOR || length % SECTOR || !length) return STATUS_INVALID_PARAMETER;
    old = open_file(KEPT), live = open_file(LIVE);
    size = size_of(live);
    end = place->FileObject->FsContext ? size : size - SECTOR; /* the last sector is no file system's */
    if (offset >= end) length = 0;
    if (length > end - offset) length = (ULONG)(end - offset);
    while (done < length) {
        LONGLONG at = offset + done, cluster = at / CLUSTER;
        ULONG count = CLUSTER - (ULONG)(at % CLUSTER), got;
        if (count > length - done) count = length - done;
        enter(); /* or it is kept, and overwritten, between the question and the read */
        got = read_at(kept[cluster / 8] >> cluster % 8 & 1 ? old : live, to + done, count, at);
        leave();
        if (got != count) break;
        done += count;
    }
    ZwClose(old), ZwClose(live);
    irp->IoStatus.Information = done;
    if (done == length && length) return STATUS_SUCCESS;
    return length ? STATUS_DEVICE_DATA_ERROR : STATUS_INVALID_PARAMETER;
}

static NTSTATUS bitmap(IRP *irp, IO_STACK_LOCATION *place) {
    LONGLONG *given = place->Parameters.DeviceIoControl.Type3InputBuffer, *to = irp->UserBuffer;
    ULONG room = place->Parameters.DeviceIoControl.OutputBufferLength, count;
    HANDLE live = open_file(LIVE), bits = open_file(BITMAP);
    LONGLONG clusters = (size_of(live) - SECTOR) / CLUSTER, first;
    NTSTATUS result = STATUS_INVALID_PARAMETER;
    if (place->Parameters.DeviceIoControl.InputBufferLength >= 8 && room > 16 && *given >= 0 && *given < clusters) {
        first = *given - *given % 64; /* rounded down */
        to[0] = first;
        to[1] = clusters - first;
        count = (ULONG)((to[1] + 7) / 8);
        result = STATUS_SUCCESS;
        if (count > SOME_BITS || count > room - 16) {
            count = room - 16 < SOME_BITS ? room - 16 : SOME_BITS;
            result = STATUS_BUFFER_OVERFLOW;
        }
        read_at(bits, to + 2, count, first / 8);
        irp->IoStatus.Information = 16 + count;
    }
    ZwClose(live), ZwClose(bits);
    return result;
}

static NTSTATUS hold(IO_STACK_LOCATION *place) {
    if (exists(IN_USE) || (holder && holder != place->FileObject)) return STATUS_ACCESS_DENIED;
    holder = place->FileObject;
    return STATUS_SUCCESS;
}

static NTSTATUS control(DEVICE_OBJECT *device, IRP *irp, IO_STACK_LOCATION *place) {
    ULONG room = place->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG code = place->Parameters.DeviceIoControl.IoControlCode;
    void *to = irp->AssociatedIrp.SystemBuffer;
    HANDLE file;
    LONGLONG size;
    if (code == MOST) {
        if (room < sizeof most) return STATUS_BUFFER_TOO_SMALL;
        *(LONG *)to = InterlockedExchange(&most, 0);
        irp->IoStatus.Information = sizeof most;
        return STATUS_SUCCESS;
    }
    if (device == live_device && code == TAKE) return take();
    if (device == live_device && code == COPIED) {
        if (room < sizeof copied) return STATUS_BUFFER_TOO_SMALL;
        *(LONG *)to = copied;
        irp->IoStatus.Information = sizeof copied;
        return STATUS_SUCCESS;
    }
    if (device == shadow_device && exists(LOST)) return STATUS_DEVICE_DOES_NOT_EXIST;
    file = open_file(device == target_device ? TARGET : LIVE);
    size = size_of(file);
    ZwClose(file);
    if (device == target_device) {
        switch (code) {
        case LOCK_VOLUME:
        case DISMOUNT_VOLUME:
            return hold(place);
        case IOCTL_DISK_IS_WRITABLE:
        case ALLOW_EXTENDED_DASD_IO:
            return STATUS_SUCCESS;
        case IOCTL_DISK_GET_LENGTH_INFO:
        case IOCTL_DISK_GET_DRIVE_GEOMETRY:
            break;
        default: /* no file system is there that could answer more */
            return STATUS_INVALID_DEVICE_REQUEST;
        }
    }
    switch (code) {
    case ALLOW_EXTENDED_DASD_IO:
        place->FileObject->FsContext = (void *)1;
        return STATUS_SUCCESS;
    case IOCTL_DISK_GET_LENGTH_INFO:
        if (room < 8) return STATUS_BUFFER_TOO_SMALL;
        *(LONGLONG *)to = size;
        irp->IoStatus.Information = 8;
        return STATUS_SUCCESS;
    case IOCTL_DISK_GET_DRIVE_GEOMETRY:
        if (room < sizeof(DISK_GEOMETRY)) return STATUS_BUFFER_TOO_SMALL;
        RtlZeroMemory(to, sizeof(DISK_GEOMETRY));
        ((DISK_GEOMETRY *)to)->BytesPerSector = SECTOR;
        irp->IoStatus.Information = sizeof(DISK_GEOMETRY);
        return STATUS_SUCCESS;
    case GET_NTFS_VOLUME_DATA:
        if (room < sizeof(NTFS_DATA)) return STATUS_BUFFER_TOO_SMALL;
        RtlZeroMemory(to, sizeof(NTFS_DATA));
        ((NTFS_DATA *)to)->sectors = size / SECTOR - 1;
        ((NTFS_DATA *)to)->clusters = (size - SECTOR) / CLUSTER;
        ((NTFS_DATA *)to)->sector = SECTOR;
        ((NTFS_DATA *)to)->cluster = CLUSTER;
        irp->IoStatus.Information = sizeof(NTFS_DATA);
        return STATUS_SUCCESS;
    case GET_VOLUME_BITMAP:
        return bitmap(irp, place);
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static void NTAPI work(void *context) {
    LARGE_INTEGER moment;
    moment.QuadPart = -50000; /* 5 ms: a disk takes its time */
    (void)context;
    for (;;) {
        KIRQL level;
        IRP *irp;
        NTSTATUS result;
        IO_STACK_LOCATION *place;
        KeWaitForSingleObject(&waiting, Executive, KernelMode, FALSE, NULL);
        KeAcquireSpinLock(&guard, &level);
        irp = IsListEmpty(&queue) ? NULL
                                  : CONTAINING_RECORD(RemoveHeadList(&queue), IRP, Tail.Overlay.ListEntry);
        KeReleaseSpinLock(&guard, level);
        if (!irp) {
            if (stopping) break;
            continue;
        }
        KeDelayExecutionThread(KernelMode, FALSE, &moment);
        place = IoGetCurrentIrpStackLocation(irp);
        if (irp->Tail.Overlay.DriverContext[0] == shadow_device)
            result = read_volume(irp, place);
        else
            result = irp->Tail.Overlay.DriverContext[0] == live_device ? live_io(irp, place) : target_io(irp, place);
        irp->IoStatus.Status = result;
        InterlockedDecrement(&under_way);
        IoCompleteRequest(irp, IO_NO_INCREMENT);
    }
    if (!InterlockedDecrement(&workers)) KeSetEvent(&ended, IO_NO_INCREMENT, FALSE);
}

static NTSTATUS begin(DEVICE_OBJECT *device, IRP *irp) {
    KIRQL level;
    LONG now = InterlockedIncrement(&under_way);
    if (now > most) most = now; /* dispatched by one thread */
    irp->Tail.Overlay.DriverContext[0] = device;
    IoMarkIrpPending(irp);
    KeAcquireSpinLock(&guard, &level);
    InsertTailList(&queue, &irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&guard, level);
    KeReleaseSemaphore(&waiting, IO_NO_INCREMENT, 1, FALSE);
    return STATUS_PENDING;
}

static NTSTATUS NTAPI dispatch(DEVICE_OBJECT *device, IRP *irp) {
    IO_STACK_LOCATION *place = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS result = STATUS_SUCCESS;
    irp->IoStatus.Information = 0;
    switch (place->MajorFunction) {
    case IRP_MJ_CREATE:
        if (device == shadow_device && exists(LOST)) result = STATUS_OBJECT_NAME_NOT_FOUND;
        if (device == target_device && holder) result = STATUS_ACCESS_DENIED;
        break;
    case IRP_MJ_CLOSE:
        if (holder == place->FileObject) holder = NULL;
        break;
    case IRP_MJ_READ:
        return begin(device, irp);
    case IRP_MJ_WRITE:
        if (device != shadow_device) return begin(device, irp);
        result = STATUS_ACCESS_DENIED;
        break;
    case IRP_MJ_DEVICE_CONTROL:
    case IRP_MJ_FILE_SYSTEM_CONTROL:
        result = control(device, irp, place);
        break;
    }
    irp->IoStatus.Status = result;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return result;
}

static void NTAPI unload(DRIVER_OBJECT *driver) {
    (void)driver;
    stopping = TRUE;
    KeReleaseSemaphore(&waiting, IO_NO_INCREMENT, WORKERS, FALSE);
    KeWaitForSingleObject(&ended, Executive, KernelMode, FALSE, NULL);
    IoDeleteDevice(shadow_device);
    IoDeleteDevice(target_device);
    IoDeleteDevice(live_device);
}

static NTSTATUS make(DRIVER_OBJECT *driver, const WCHAR *path, DEVICE_OBJECT **device) {
    UNICODE_STRING name;
    RtlInitUnicodeString(&name, path);
    return IoCreateDevice(driver, 0, &name, FILE_DEVICE_DISK, 0, FALSE, device);
}

NTSTATUS NTAPI DriverEntry(DRIVER_OBJECT *driver, UNICODE_STRING *registry) {
    NTSTATUS result;
    int index;
    (void)registry;
    for (index = 0; index <= IRP_MJ_MAXIMUM_FUNCTION; index++) driver->MajorFunction[index] = dispatch;
    driver->DriverUnload = unload;
    InitializeListHead(&queue);
    KeInitializeSpinLock(&guard);
    KeInitializeSemaphore(&waiting, 0, 1 << 20);
    KeInitializeSemaphore(&copying, 1, 1);
    KeInitializeEvent(&ended, NotificationEvent, FALSE);
    workers = WORKERS;
    for (index = 0; index < WORKERS; index++) {
        HANDLE thread;
        if ((result = PsCreateSystemThread(&thread, THREAD_ALL_ACCESS, NULL, NULL, NULL, work, NULL))) return result;
        ZwClose(thread);
    }
    if ((result = make(driver, L"\\Device\\HarddiskVolumeShadowCopy7", &shadow_device))) return result;
    if ((result = make(driver, L"\\Device\\HarddiskVolume3", &live_device))) return result;
    return make(driver, L"\\Device\\HarddiskVolume9", &target_device);
}
