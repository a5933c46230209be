import Glibc
import MessageModel
import StoreFormat

extension MessageStore {
    /// The properties of one record, in the order they are written: the sender's, the broker's, the checksum.
    struct RecordProperties {
        let first: UnsafeRawBufferPointer
        let second: UnsafeRawBufferPointer
        /// A separator is to be put between the two …
        let isSeparated: Bool
        /// … and one before the checksum.
        let isClosed: Bool
        let hasChecksum: Bool
        /// Bytes of it all.
        let count: Int
    }

    /// Decides how properties are stored. The pointers may lead into a buffer of the store's and are valid until the
    /// next call.
    @inline(__always)
    func storedProperties(
        _ properties: UnsafeRawBufferPointer, _ suffix: UnsafeRawBufferPointer, _ draft: MessageDraft
    ) -> RecordProperties {
        var first = properties
        if configuration.enabledAppendPropCRC {
            first = withoutChecksum(properties)
        } else if PropCRC.ends(properties) {
            // Copied from a record of other settings: another record's checksum would make this one look damaged when
            // they change again.
            first = UnsafeRawBufferPointer(rebasing: properties.dropLast(PropCRC.size))
        }
        let isSeparated = !suffix.isEmpty && Self.isOpen(first)
        var count = first.count + suffix.count + (isSeparated ? 1 : 0)
        let isClosed = Self.isOpen(suffix.isEmpty ? first : suffix)
        let checksumSize = PropCRC.size + (isClosed ? 1 : 0)
        // A waiting message that was taken before the key was set must be delivered all the same.
        let hasChecksum =
            configuration.enabledAppendPropCRC
            && (count + checksumSize <= Int(Int16.max) || !draft.mayUseReserve)
        if hasChecksum { count += checksumSize }
        return RecordProperties(
            first: first, second: suffix, isSeparated: isSeparated, isClosed: isClosed, hasChecksum: hasChecksum,
            count: count)
    }

    /// Whether a property begins only after one more separator.
    @inline(__always)
    private static func isOpen(_ properties: UnsafeRawBufferPointer) -> Bool {
        guard let last = properties.last else { return false }
        return last != MessageProperties.propertySeparator
    }

    /// RocketMQ takes out a checksum a message brings along (`CommitLog.asyncPutMessage`): it was another record's.
    @inline(__always)
    private func withoutChecksum(_ properties: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
        guard let base = properties.baseAddress, memchr(base, 35, properties.count) != nil else { return properties }
        return takingOutChecksums(properties)
    }

    /// Properties with a `#` in them.
    private func takingOutChecksums(_ properties: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
        var rest = properties
        while PropCRC.ends(rest) { rest = UnsafeRawBufferPointer(rebasing: rest.dropLast(PropCRC.size)) }
        let name = PropertyName.recordCRC
        let wanted = UnsafeRawBufferPointer(start: name.utf8Start, count: name.utf8CodeUnitCount)
        guard MessageProperties.value(of: name, in: rest) != nil else { return rest }
        propertyScratch.removeAll()
        MessageProperties.forEach(in: rest) { name, value in
            if MessageProperties.equal(name, wanted) { return }
            propertyScratch.append(name)
            propertyScratch.extend(1).storeBytes(of: MessageProperties.nameValueSeparator, as: UInt8.self)
            propertyScratch.append(value)
            propertyScratch.extend(1).storeBytes(of: MessageProperties.propertySeparator, as: UInt8.self)
        }
        return propertyScratch.bytes
    }
}
