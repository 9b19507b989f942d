//! How much of a program file is the program: what the system maps, without what only debuggers read.

/// The magic number, and the classes of a file of 64 bits, little-endian.
const HEAD: [u8; 6] = [0x7f, b'E', b'L', b'F', 2, 1];
/// Where the header says where the segments' table is, how long an entry is, and how many there are.
const TABLE_AT: usize = 32;
const ENTRY_BYTES_AT: usize = 54;
const ENTRIES_AT: usize = 56;
/// A segment that is loaded, and where an entry says how many bytes of the file that takes.
const LOADED: u32 = 1;
const FILE_BYTES_AT: usize = 32;

/// Bytes of a file that are loaded; `None` if it is no ELF file of 64 bits, little-endian.
pub(super) fn loaded_bytes(file: &[u8]) -> Option<u64> {
    if !file.starts_with(&HEAD) {
        return None;
    }
    let table = usize::try_from(u64_at(file, TABLE_AT)?).ok()?;
    let entry_bytes = usize::from(u16_at(file, ENTRY_BYTES_AT)?);
    let mut sum = 0_u64;
    for entry in 0..usize::from(u16_at(file, ENTRIES_AT)?) {
        let at = table.checked_add(entry * entry_bytes)?;
        let kind = file.get(at..)?.first_chunk()?;
        if u32::from_le_bytes(*kind) == LOADED {
            sum = sum.checked_add(u64_at(file, at.checked_add(FILE_BYTES_AT)?)?)?;
        }
    }
    Some(sum)
}

fn u16_at(file: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*file.get(at..)?.first_chunk()?))
}

fn u64_at(file: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*file.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loaded_segments_count() {
        let mut file = vec![0; 64];
        file[..6].copy_from_slice(&HEAD);
        file[TABLE_AT] = 64;
        file[ENTRY_BYTES_AT] = 56;
        file[ENTRIES_AT] = 3;
        for (kind, bytes) in [(1_u32, 1_000_u64), (4, 50), (1, 20)] {
            let mut entry = [0; 56];
            entry[..4].copy_from_slice(&kind.to_le_bytes());
            entry[FILE_BYTES_AT..40].copy_from_slice(&bytes.to_le_bytes());
            file.extend(entry);
        }
        assert_eq!(loaded_bytes(&file), Some(1_020));
        file.truncate(100);
        assert_eq!(loaded_bytes(&file), None);
        assert_eq!(loaded_bytes(b"#!/bin/sh"), None);
    }
}
