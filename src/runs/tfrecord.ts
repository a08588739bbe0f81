/**
 * TFRecord framing: length, masked CRC32C of the length, data, masked CRC32C of the data; little-endian. CRC32C is Castagnoli's
 * polynomial (RFC 3720, appendix B.4), masked as the format asks: rotated right by 15 bits, plus a constant.
 */
import type { FileHandle } from 'node:fs/promises';

const headerBytes = 12;
const footerBytes = 4;

const table = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = (crc & 1) === 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  return crc >>> 0;
});

export function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (let i = 0; i < bytes.length; i++) crc = table[(crc ^ bytes[i]!) & 255]! ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

export function maskedCrc32c(bytes: Uint8Array): number {
  const crc = crc32c(bytes);
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
}

/** One record as it stands in the file. */
export function frameRecord(data: Uint8Array): Buffer {
  const record = Buffer.alloc(headerBytes + data.length + footerBytes);
  record.writeUInt32LE(data.length >>> 0, 0);
  record.writeUInt32LE(Math.floor(data.length / 2 ** 32), 4);
  record.writeUInt32LE(maskedCrc32c(record.subarray(0, 8)), 8);
  record.set(data, headerBytes);
  record.writeUInt32LE(maskedCrc32c(data), headerBytes + data.length);
  return record;
}

/**
 * Where the last whole record at or before `size` ends: lengths are followed from the beginning, their checksums compared;
 * what follows a damaged length is not a record.
 */
export async function endOfLastRecord(handle: FileHandle, size: number): Promise<number> {
  const chunk = Buffer.alloc(1024 * 1024);
  let chunkStart = 0;
  let chunkEnd = 0;
  let end = 0;
  while (end + headerBytes + footerBytes <= size) {
    if (end < chunkStart || end + headerBytes > chunkEnd) {
      const { bytesRead } = await handle.read(chunk, 0, chunk.length, end);
      chunkStart = end;
      chunkEnd = end + bytesRead;
      if (bytesRead < headerBytes) return end;
    }
    const header = chunk.subarray(end - chunkStart, end - chunkStart + headerBytes);
    if (header.readUInt32LE(8) !== maskedCrc32c(header.subarray(0, 8))) return end;
    const next = end + headerBytes + header.readUInt32LE(0) + header.readUInt32LE(4) * 2 ** 32 + footerBytes;
    if (next > size) return end;
    end = next;
  }
  return end;
}
