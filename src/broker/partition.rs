//! The partition of a chat, in queues that are spread over several.

/// Returns the partition of a chat: XXH3-64 of its id, with seed 0, modulo the number of
/// partitions.
pub fn partition_of(chat_id: &[u8], partitions: usize) -> usize {
    let hash = xxhash_rust::xxh3::xxh3_64(chat_id);
    usize::try_from(hash % (partitions.max(1) as u64)).unwrap_or(0)
}
