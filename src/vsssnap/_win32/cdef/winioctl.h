/* Buffers of device controls -- winioctl.h; Windows SDK 10.0.22621. */
typedef struct {
    LONGLONG Length;
} GET_LENGTH_INFORMATION;

typedef struct {
    LONGLONG Cylinders;
    DWORD MediaType;
    DWORD TracksPerCylinder;
    DWORD SectorsPerTrack;
    DWORD BytesPerSector;
} DISK_GEOMETRY;

typedef struct {
    LONGLONG VolumeSerialNumber;
    LONGLONG NumberSectors;
    LONGLONG TotalClusters;
    LONGLONG FreeClusters;
    LONGLONG TotalReserved;
    DWORD BytesPerSector;
    DWORD BytesPerCluster;
    DWORD BytesPerFileRecordSegment;
    DWORD ClustersPerFileRecordSegment;
    LONGLONG MftValidDataLength;
    LONGLONG MftStartLcn;
    LONGLONG Mft2StartLcn;
    LONGLONG MftZoneStart;
    LONGLONG MftZoneEnd;
} NTFS_VOLUME_DATA_BUFFER;

typedef struct {
    LONGLONG StartingLcn;
} STARTING_LCN_INPUT_BUFFER;

typedef struct {
    LONGLONG StartingLcn;
    LONGLONG BitmapSize; /* bits from StartingLcn to the end of the volume */
    BYTE Buffer[1];
} VOLUME_BITMAP_BUFFER;

typedef struct {
    LONGLONG FileAreaOffset; /* sectors from the start of the volume to cluster 0 */
} RETRIEVAL_POINTER_BASE;

typedef struct {
    DWORD DeviceType;
    DWORD DeviceNumber;
    DWORD PartitionNumber; /* 0 for the whole disk */
} STORAGE_DEVICE_NUMBER;

typedef struct {
    DWORD DiskNumber;
    LONGLONG StartingOffset;
    LONGLONG ExtentLength;
} DISK_EXTENT;

typedef struct {
    DWORD NumberOfDiskExtents;
    DISK_EXTENT Extents[1];
} VOLUME_DISK_EXTENTS;

typedef struct {
    LONGLONG StartingVcn;
} STARTING_VCN_INPUT_BUFFER;

typedef struct {
    DWORD ExtentCount;
    LONGLONG StartingVcn;
    struct {
        LONGLONG NextVcn;
        LONGLONG Lcn; /* -1 for a hole */
    } Extents[1];
} RETRIEVAL_POINTERS_BUFFER;

typedef struct {
    LONGLONG FileOffset;
    LONGLONG Length;
} FILE_ALLOCATED_RANGE_BUFFER;

typedef struct {
    GUID PartitionType;
    GUID PartitionId;
    ULONGLONG Attributes;
    WCHAR Name[36];
} PARTITION_INFORMATION_GPT;

typedef struct {
    int32_t PartitionStyle; /* 0 MBR, 1 GPT, 2 none */
    LONGLONG StartingOffset;
    LONGLONG PartitionLength;
    DWORD PartitionNumber; /* 0 for an entry that is none */
    BOOLEAN RewritePartition;
    PARTITION_INFORMATION_GPT Gpt; /* the larger part of a union with Mbr */
} PARTITION_INFORMATION_EX;

typedef struct {
    GUID DiskId;
    LONGLONG StartingUsableOffset;
    LONGLONG UsableLength;
    DWORD MaxPartitionCount;
} DRIVE_LAYOUT_INFORMATION_GPT;

typedef struct {
    DWORD PartitionStyle;
    DWORD PartitionCount;
    DRIVE_LAYOUT_INFORMATION_GPT Gpt; /* likewise */
    PARTITION_INFORMATION_EX PartitionEntry[1];
} DRIVE_LAYOUT_INFORMATION_EX;
