/* A volume driver for the laboratory: \Device\HarddiskVolumeShadowCopy7, as strict as raw volumes are.
 *
 * FROZEN is the volume as it was at the instant; what was free then (a clear bit in BITMAP) is not
 * preserved and shows what LIVE holds by now.  While LOST exists the shadow copy is gone.  The names
 * are paths of files, given to the compiler. */

#include <ntddk.h>
#include <ntdddisk.h>

#define SECTOR 512
#define CLUSTER 4096
#define FSCTL(function, method) CTL_CODE(FILE_DEVICE_FILE_SYSTEM, function, method, FILE_ANY_ACCESS)
#define GET_NTFS_VOLUME_DATA FSCTL(25, METHOD_BUFFERED)
#define GET_VOLUME_BITMAP FSCTL(27, METHOD_NEITHER)
#define ALLOW_EXTENDED_DASD_IO FSCTL(32, METHOD_NEITHER)
#define SOME_BITS 512 /* bytes of bitmap at a time: it has to be asked for in pages */

typedef struct {
    LONGLONG serial, sectors, clusters, free, reserved;
    ULONG sector, cluster, record, clusters_per_record;
    LONGLONG mft[5];
} NTFS_DATA;

static HANDLE open_file(const WCHAR *path) {
    UNICODE_STRING name;
    OBJECT_ATTRIBUTES attributes;
    IO_STATUS_BLOCK status;
    HANDLE file;
    RtlInitUnicodeString(&name, path);
    InitializeObjectAttributes(&attributes, &name, OBJ_CASE_INSENSITIVE | OBJ_KERNEL_HANDLE, NULL, NULL);
    if (ZwCreateFile(&file, GENERIC_READ | SYNCHRONIZE, &attributes, &status, NULL, 0,
                     FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, FILE_OPEN,
                     FILE_SYNCHRONOUS_IO_NONALERT, NULL, 0))
        return NULL;
    return file;
}

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

static BOOLEAN is_lost(void) {
    HANDLE file = open_file(LOST);
    if (!file) return FALSE;
    ZwClose(file);
    return TRUE;
}

static NTSTATUS read_volume(IRP *irp, IO_STACK_LOCATION *place) {
    LONGLONG offset = place->Parameters.Read.ByteOffset.QuadPart;
    ULONG length = place->Parameters.Read.Length, done = 0;
    UCHAR *to = irp->UserBuffer;
    HANDLE frozen, live, bits;
    LONGLONG size, end;
    if (is_lost()) return STATUS_DEVICE_DOES_NOT_EXIST;
    /* Not the address: Wine hands a buffer of its own to the driver. */
    if (offset % SECTOR || length % SECTOR || !length) return STATUS_INVALID_PARAMETER;
    frozen = open_file(FROZEN), live = open_file(LIVE), bits = open_file(BITMAP);
    size = size_of(frozen);
    end = place->FileObject->FsContext ? size : size - SECTOR; /* the last sector is no file system's */
    if (offset >= end) length = 0;
    if (length > end - offset) length = (ULONG)(end - offset);
    while (done < length) {
        LONGLONG at = offset + done;
        ULONG count = CLUSTER - (ULONG)(at % CLUSTER);
        UCHAR byte = 0xff;
        if (count > length - done) count = length - done;
        if (at / CLUSTER < size / CLUSTER) read_at(bits, &byte, 1, at / CLUSTER / 8);
        if (read_at(byte >> at / CLUSTER % 8 & 1 ? frozen : live, to + done, count, at) != count) break;
        done += count;
    }
    ZwClose(frozen), ZwClose(live), ZwClose(bits);
    irp->IoStatus.Information = done;
    if (done == length && length) return STATUS_SUCCESS;
    return length ? STATUS_DEVICE_DATA_ERROR : STATUS_INVALID_PARAMETER;
}

static NTSTATUS bitmap(IRP *irp, IO_STACK_LOCATION *place) {
    LONGLONG *given = place->Parameters.DeviceIoControl.Type3InputBuffer, *to = irp->UserBuffer;
    ULONG room = place->Parameters.DeviceIoControl.OutputBufferLength, count;
    HANDLE frozen = open_file(FROZEN), bits = open_file(BITMAP);
    LONGLONG clusters = (size_of(frozen) - SECTOR) / CLUSTER, first;
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
    ZwClose(frozen), ZwClose(bits);
    return result;
}

static NTSTATUS control(IRP *irp, IO_STACK_LOCATION *place) {
    ULONG room = place->Parameters.DeviceIoControl.OutputBufferLength;
    void *to = irp->AssociatedIrp.SystemBuffer;
    HANDLE frozen;
    LONGLONG size;
    if (is_lost()) return STATUS_DEVICE_DOES_NOT_EXIST;
    frozen = open_file(FROZEN);
    size = size_of(frozen);
    ZwClose(frozen);
    switch (place->Parameters.DeviceIoControl.IoControlCode) {
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

static NTSTATUS NTAPI dispatch(DEVICE_OBJECT *device, IRP *irp) {
    IO_STACK_LOCATION *place = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS result = STATUS_SUCCESS;
    irp->IoStatus.Information = 0;
    switch (place->MajorFunction) {
    case IRP_MJ_CREATE:
        if (is_lost()) result = STATUS_OBJECT_NAME_NOT_FOUND;
        break;
    case IRP_MJ_READ:
        result = read_volume(irp, place);
        break;
    case IRP_MJ_DEVICE_CONTROL:
    case IRP_MJ_FILE_SYSTEM_CONTROL:
        result = control(irp, place);
        break;
    }
    irp->IoStatus.Status = result;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return result;
}

static void NTAPI unload(DRIVER_OBJECT *driver) { IoDeleteDevice(driver->DeviceObject); }

NTSTATUS NTAPI DriverEntry(DRIVER_OBJECT *driver, UNICODE_STRING *registry) {
    UNICODE_STRING name;
    DEVICE_OBJECT *device;
    int index;
    for (index = 0; index <= IRP_MJ_MAXIMUM_FUNCTION; index++) driver->MajorFunction[index] = dispatch;
    driver->DriverUnload = unload;
    RtlInitUnicodeString(&name, L"\\Device\\HarddiskVolumeShadowCopy7");
    return IoCreateDevice(driver, 0, &name, FILE_DEVICE_DISK, 0, FALSE, &device);
}
