/* A volume driver for the laboratory, as strict as raw volumes are: \Device\HarddiskVolume3, its shadow
 * copy \Device\HarddiskVolumeShadowCopy7, and \Device\HarddiskVolume9, which can be written once it is locked.
 *
 * LIVE holds the first volume, which is written through the driver.  Once TAKE was called, the old bytes
 * of a cluster go to KEPT before it is overwritten, and the shadow copy is read from there or, where
 * nothing was overwritten, from LIVE.  What was free then (a clear bit in BITMAP) is not preserved and
 * shows what LIVE holds by now.  While LOST exists the shadow copy is gone; it is made when more bytes
 * were read than the file LOSE_AFTER says.  TARGET is the other volume.  DISK is a whole disk with a
 * partition that is a volume of its own, HarddiskVolume10, and one that is none.  A volume is locked only
 * while nobody else has it open, and while IN_USE does not exist, which stands for an open file; a disk is
 * written where it has no volume, or a locked one.  A file of the shadow copy, VsssnapLabFile, lies where
 * RUNS says (pairs of the VCN behind a run and its LCN), and has clusters where they are not -1.
 * While HANG exists, the target neither tells its length nor is read: such calls are pending until they are
 * cancelled.  While DEAF exists, reads of it go on though they are cancelled.
 * The names are paths of files, given to the compiler, as is SECTOR.
 *
 * What Wine answers by itself and never passes to a driver (locks, retrieval pointers) is asked for by
 * codes of the lab's own.
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
#define DISMOUNT_VOLUME FSCTL(8, METHOD_BUFFERED)
#define GET_NTFS_VOLUME_DATA FSCTL(25, METHOD_BUFFERED)
#define GET_VOLUME_BITMAP FSCTL(27, METHOD_NEITHER)
#define ALLOW_EXTENDED_DASD_IO FSCTL(32, METHOD_NEITHER)
#define MOST CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define TAKE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define COPIED CTL_CODE(FILE_DEVICE_UNKNOWN, 0x803, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define LOCK CTL_CODE(FILE_DEVICE_UNKNOWN, 0x804, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define GET_RETRIEVAL_POINTERS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x805, METHOD_NEITHER, FILE_ANY_ACCESS)
#define QUERY_ALLOCATED_RANGES FSCTL(51, METHOD_NEITHER) /* FILE_ANY_ACCESS: the bits of access do not matter here */
#define STORAGE_GET_DEVICE_NUMBER CTL_CODE(FILE_DEVICE_MASS_STORAGE, 0x420, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define VOLUME_GET_VOLUME_DISK_EXTENTS CTL_CODE('V', 0, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define DISK_NUMBER 7
#define PART_AT (1 << 20)
#define PART_LENGTH (6 << 20)
#define REST_AT (7 << 20) /* a partition without a volume */
#define REST_LENGTH (1 << 19)
#define SOME_RUNS 3 /* at a time: they have to be asked for in pages */
#define MOST_CLUSTERS (1 << 18) /* of LIVE: 1 GiB */
#define SOME_BITS 512 /* bytes of bitmap at a time: it has to be asked for in pages */

typedef struct {
    LONGLONG serial, sectors, clusters, free, reserved;
    ULONG sector, cluster, record, clusters_per_record;
    LONGLONG mft[5];
} NTFS_DATA;

typedef struct { /* a volume that can be locked and written */
    DEVICE_OBJECT *device;
    const WCHAR *file;
    LONGLONG base, length; /* where in the file; 0 for all of it */
    FILE_OBJECT *holder; /* who has locked it */
    LONG opens;
} RAW;

typedef struct {
    ULONG disk, unused;
    LONGLONG offset, length;
} EXTENT;

typedef struct {
    LONGLONG offset, length;
} RANGE;

static RAW target = {NULL, TARGET, 0, 0, NULL, 0}, part = {NULL, DISK, PART_AT, PART_LENGTH, NULL, 0};
static DEVICE_OBJECT *shadow_device, *live_device, *disk_device, *file_device;
static KSEMAPHORE copying; /* held for the instant, and from before a cluster is kept until it is overwritten */
static BOOLEAN taken;
static UCHAR kept[MOST_CLUSTERS / 8]; /* clusters whose bytes at the instant are in KEPT */
static LONG copied;
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

static RAW *raw_of(DEVICE_OBJECT *device) {
    return device == target.device ? &target : device == part.device ? &part : NULL;
}

static NTSTATUS file_io(IRP *irp, IO_STACK_LOCATION *place, const WCHAR *path, LONGLONG base, LONGLONG end) {
    BOOLEAN writes = place->MajorFunction == IRP_MJ_WRITE, good;
    ULONG length = writes ? place->Parameters.Write.Length : place->Parameters.Read.Length;
    LONGLONG offset = writes ? place->Parameters.Write.ByteOffset.QuadPart : place->Parameters.Read.ByteOffset.QuadPart;
    HANDLE file = open_as(path, writes ? GENERIC_READ | GENERIC_WRITE : GENERIC_READ, FILE_OPEN);
    if (!file) return STATUS_DEVICE_DOES_NOT_EXIST;
    if (!end) end = size_of(file);
    if (offset % SECTOR || length % SECTOR || !length || offset + length > end) {
        ZwClose(file);
        return STATUS_INVALID_PARAMETER;
    }
    if (writes)
        good = write_at(file, irp->UserBuffer, length, base + offset);
    else
        good = read_at(file, irp->UserBuffer, length, base + offset) == length;
    ZwClose(file);
    irp->IoStatus.Information = good ? length : 0;
    return good ? STATUS_SUCCESS : STATUS_DEVICE_DATA_ERROR;
}

static NTSTATUS raw_io(IRP *irp, IO_STACK_LOCATION *place, RAW *raw) {
    if (place->MajorFunction == IRP_MJ_WRITE && raw->holder != place->FileObject) return STATUS_ACCESS_DENIED;
    return file_io(irp, place, raw->file, raw->base, raw->length);
}

static NTSTATUS disk_io(IRP *irp, IO_STACK_LOCATION *place) {
    LONGLONG offset = place->Parameters.Write.ByteOffset.QuadPart, end = offset + place->Parameters.Write.Length;
    if (place->MajorFunction == IRP_MJ_WRITE && !part.holder && offset < PART_AT + PART_LENGTH && PART_AT < end)
        return STATUS_ACCESS_DENIED;
    return file_io(irp, place, DISK, 0, 0);
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

static NTSTATUS hold(RAW *raw, IO_STACK_LOCATION *place) {
    if (exists(IN_USE) || raw->opens > 1 || (raw->holder && raw->holder != place->FileObject))
        return STATUS_ACCESS_DENIED;
    raw->holder = place->FileObject;
    return STATUS_SUCCESS;
}

/* A structure with a head and items: all of them, or as many as have room. */
static NTSTATUS give(IRP *irp, IO_STACK_LOCATION *place, void *all, ULONG head, ULONG item, ULONG count, BOOLEAN some) {
    ULONG room = place->Parameters.DeviceIoControl.OutputBufferLength, length = head + item * count;
    if (room < head + (some ? item : item * count)) return STATUS_BUFFER_TOO_SMALL;
    if (room < length) length = room - (room - head) % item;
    RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, all, length);
    irp->IoStatus.Information = length;
    return length < head + item * count ? STATUS_BUFFER_OVERFLOW : STATUS_SUCCESS;
}

static NTSTATUS volume_extents(IRP *irp, IO_STACK_LOCATION *place, RAW *raw) {
    struct {
        ULONG count, unused;
        EXTENT extents[2];
    } found = {1, 0, {{DISK_NUMBER, 0, PART_AT, PART_LENGTH}}};
    if (raw == &target) { /* on two other disks */
        found.count = 2;
        found.extents[0].disk = DISK_NUMBER + 1, found.extents[1].disk = DISK_NUMBER + 2;
    }
    return give(irp, place, &found, 8, sizeof(EXTENT), found.count, TRUE);
}

static NTSTATUS disk_layout(IRP *irp, IO_STACK_LOCATION *place) {
    struct {
        ULONG style, count;
        UCHAR gpt[40];
        struct {
            ULONG style, unused;
            LONGLONG offset, length;
            ULONG number, rewrite;
            UCHAR gpt[112];
        } entries[2];
    } found;
    RtlZeroMemory(&found, sizeof found);
    found.style = found.entries[0].style = found.entries[1].style = 1;
    found.count = 2;
    found.entries[0].number = 1, found.entries[0].offset = PART_AT, found.entries[0].length = PART_LENGTH;
    found.entries[1].number = 2, found.entries[1].offset = REST_AT, found.entries[1].length = REST_LENGTH;
    return give(irp, place, &found, 48, sizeof found.entries[0], found.count, FALSE);
}

/* Where the file lies, from the run with a VCN on. */
static NTSTATUS retrieval_pointers(IRP *irp, IO_STACK_LOCATION *place) {
    LONGLONG *given = place->Parameters.DeviceIoControl.Type3InputBuffer, *to = irp->UserBuffer;
    ULONG room = place->Parameters.DeviceIoControl.OutputBufferLength, count = 0;
    LONGLONG run[2], vcn = 0, at = 0;
    HANDLE runs;
    if (place->Parameters.DeviceIoControl.InputBufferLength < 8 || room < 32 || *given < 0) return STATUS_INVALID_PARAMETER;
    runs = open_file(RUNS);
    for (; read_at(runs, run, sizeof run, at) == sizeof run; vcn = run[0], at += sizeof run) {
        if (run[0] <= *given) continue;
        if (count == SOME_RUNS || 16 + 16 * (count + 1) > room) break;
        if (!count) to[1] = vcn; /* rounded down to where the run begins */
        to[2 + 2 * count] = run[0], to[3 + 2 * count] = run[1];
        count++;
    }
    room = read_at(runs, run, sizeof run, at);
    ZwClose(runs);
    if (!count) return STATUS_END_OF_FILE;
    to[0] = count; /* a ULONG and padding */
    irp->IoStatus.Information = 16 + 16 * count;
    return room ? STATUS_BUFFER_OVERFLOW : STATUS_SUCCESS;
}

/* What of a range of the file has clusters. */
static NTSTATUS allocated_ranges(IRP *irp, IO_STACK_LOCATION *place) {
    RANGE *given = place->Parameters.DeviceIoControl.Type3InputBuffer, *to = irp->UserBuffer;
    ULONG most_ranges = place->Parameters.DeviceIoControl.OutputBufferLength / sizeof(RANGE), count = 0;
    LONGLONG run[2], first = 0, at = 0;
    NTSTATUS result = STATUS_SUCCESS;
    HANDLE runs;
    if (place->Parameters.DeviceIoControl.InputBufferLength < sizeof(RANGE) || given->offset < 0 || given->length < 0)
        return STATUS_INVALID_PARAMETER;
    if (most_ranges > SOME_RUNS) most_ranges = SOME_RUNS;
    runs = open_file(RUNS);
    for (; read_at(runs, run, sizeof run, at) == sizeof run; first = run[0] * CLUSTER, at += sizeof run) {
        if (run[1] < 0 || run[0] * CLUSTER <= given->offset || first >= given->offset + given->length) continue;
        if (count == most_ranges) {
            result = STATUS_BUFFER_OVERFLOW;
            break;
        }
        to[count].offset = first, to[count].length = run[0] * CLUSTER - first;
        count++;
    }
    ZwClose(runs);
    irp->IoStatus.Information = count * sizeof(RANGE);
    return result;
}

static NTSTATUS control(DEVICE_OBJECT *device, IRP *irp, IO_STACK_LOCATION *place) {
    ULONG room = place->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG code = place->Parameters.DeviceIoControl.IoControlCode;
    void *to = irp->AssociatedIrp.SystemBuffer;
    RAW *raw = raw_of(device);
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
    if (device == file_device) {
        if (code == GET_RETRIEVAL_POINTERS) return retrieval_pointers(irp, place);
        if ((code & ~0xc000) == QUERY_ALLOCATED_RANGES) return allocated_ranges(irp, place);
        return STATUS_INVALID_DEVICE_REQUEST;
    }
    file = open_file(raw ? raw->file : device == disk_device ? DISK : LIVE);
    size = raw && raw->length ? raw->length : size_of(file);
    ZwClose(file);
    if (raw || device == disk_device) {
        switch (code) {
        case LOCK:
            return raw ? hold(raw, place) : STATUS_INVALID_DEVICE_REQUEST;
        case DISMOUNT_VOLUME: /* who has not locked it would take files from others */
            if (!raw) return STATUS_INVALID_DEVICE_REQUEST;
            return raw->holder == place->FileObject ? STATUS_SUCCESS : STATUS_ACCESS_DENIED;
        case ALLOW_EXTENDED_DASD_IO:
            return raw ? STATUS_SUCCESS : STATUS_INVALID_DEVICE_REQUEST;
        case IOCTL_DISK_IS_WRITABLE:
            return STATUS_SUCCESS;
        case VOLUME_GET_VOLUME_DISK_EXTENTS:
            return raw ? volume_extents(irp, place, raw) : STATUS_INVALID_DEVICE_REQUEST;
        case STORAGE_GET_DEVICE_NUMBER: {
            ULONG numbers[3] = {FILE_DEVICE_DISK, DISK_NUMBER, raw ? 1 : 0};
            if (raw == &target) return STATUS_INVALID_DEVICE_REQUEST; /* it lies on two disks */
            return give(irp, place, numbers, sizeof numbers, 0, 0, FALSE);
        }
        case IOCTL_DISK_GET_DRIVE_LAYOUT_EX:
            return raw ? STATUS_INVALID_DEVICE_REQUEST : disk_layout(irp, place);
        case IOCTL_DISK_UPDATE_PROPERTIES:
            return raw ? STATUS_INVALID_DEVICE_REQUEST : STATUS_SUCCESS;
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
        while (irp->Tail.Overlay.DriverContext[0] == target.device && exists(DEAF) && !stopping)
            KeDelayExecutionThread(KernelMode, FALSE, &moment);
        place = IoGetCurrentIrpStackLocation(irp);
        if (irp->Tail.Overlay.DriverContext[0] == shadow_device)
            result = read_volume(irp, place);
        else if (irp->Tail.Overlay.DriverContext[0] == live_device)
            result = live_io(irp, place);
        else if (irp->Tail.Overlay.DriverContext[0] == disk_device)
            result = disk_io(irp, place);
        else
            result = raw_io(irp, place, raw_of(irp->Tail.Overlay.DriverContext[0]));
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

static void NTAPI cancelled(DEVICE_OBJECT *device, IRP *irp) {
    (void)device;
    IoReleaseCancelSpinLock(irp->CancelIrql);
    irp->IoStatus.Status = STATUS_CANCELLED;
    irp->IoStatus.Information = 0;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
}

static BOOLEAN hangs(DEVICE_OBJECT *device, IO_STACK_LOCATION *place) {
    if (device != target.device || !exists(HANG)) return FALSE;
    return place->MajorFunction == IRP_MJ_READ
           || (place->MajorFunction == IRP_MJ_DEVICE_CONTROL
               && place->Parameters.DeviceIoControl.IoControlCode == IOCTL_DISK_GET_LENGTH_INFO);
}

static NTSTATUS NTAPI dispatch(DEVICE_OBJECT *device, IRP *irp) {
    IO_STACK_LOCATION *place = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS result = STATUS_SUCCESS;
    RAW *raw = raw_of(device);
    irp->IoStatus.Information = 0;
    if (hangs(device, place)) {
        IoMarkIrpPending(irp);
        IoSetCancelRoutine(irp, cancelled);
        return STATUS_PENDING;
    }
    switch (place->MajorFunction) {
    case IRP_MJ_CREATE:
        if (device == shadow_device && exists(LOST)) result = STATUS_OBJECT_NAME_NOT_FOUND;
        if (raw && raw->holder) result = STATUS_ACCESS_DENIED;
        if (raw && !result) raw->opens++;
        break;
    case IRP_MJ_CLOSE:
        if (raw) raw->opens--;
        if (raw && raw->holder == place->FileObject) raw->holder = NULL;
        break;
    case IRP_MJ_READ:
        if (device != file_device) return begin(device, irp);
        result = STATUS_INVALID_DEVICE_REQUEST;
        break;
    case IRP_MJ_WRITE:
        if (device != shadow_device && device != file_device) return begin(device, irp);
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

static const WCHAR *links[][2] = { /* names that programs use */
    {L"\\DosDevices\\PhysicalDrive7", L"\\Device\\VsssnapLabDisk"},
    {L"\\DosDevices\\Volume{77777777-0000-0000-0000-000000000001}", L"\\Device\\HarddiskVolume10"},
    {L"\\DosDevices\\Volume{77777777-0000-0000-0000-000000000002}", L"\\Device\\HarddiskVolume9"},
};

static void NTAPI unload(DRIVER_OBJECT *driver) {
    UNICODE_STRING name;
    ULONG index;
    (void)driver;
    stopping = TRUE;
    KeReleaseSemaphore(&waiting, IO_NO_INCREMENT, WORKERS, FALSE);
    KeWaitForSingleObject(&ended, Executive, KernelMode, FALSE, NULL);
    for (index = 0; index < sizeof links / sizeof *links; index++) {
        RtlInitUnicodeString(&name, links[index][0]);
        IoDeleteSymbolicLink(&name);
    }
    IoDeleteDevice(shadow_device);
    IoDeleteDevice(target.device);
    IoDeleteDevice(part.device);
    IoDeleteDevice(disk_device);
    IoDeleteDevice(file_device);
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
    if ((result = make(driver, L"\\Device\\HarddiskVolume9", &target.device))) return result;
    if ((result = make(driver, L"\\Device\\HarddiskVolume10", &part.device))) return result;
    if ((result = make(driver, L"\\Device\\VsssnapLabDisk", &disk_device))) return result;
    if ((result = make(driver, L"\\Device\\VsssnapLabFile", &file_device))) return result;
    for (index = 0; index < (int)(sizeof links / sizeof *links); index++) {
        UNICODE_STRING name, other;
        RtlInitUnicodeString(&name, links[index][0]);
        RtlInitUnicodeString(&other, links[index][1]);
        if ((result = IoCreateSymbolicLink(&name, &other))) return result;
    }
    return STATUS_SUCCESS;
}
