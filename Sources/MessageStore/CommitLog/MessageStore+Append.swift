import Glibc
import LinuxSystem
import MessageModel
package import StoreFormat

extension MessageStore {
    /// Encodes one message into this tick's buffer.
    package func append(_ draft: MessageDraft) -> AppendOutcome {
        if let refusal = gate.refusal(mayUseReserve: draft.mayUseReserve) { return .refused(refusal) }
        let properties = storedProperties(draft.properties, draft.propertiesSuffix, draft)
        if let refusal = checkSizes(
            draft, body: draft.body.count, properties: properties.count + (draft.growth ?? 0))
        {
            return .refused(refusal)
        }
        let sysFlag = familyFlags(draft)
        let size = CommitLogRecord.size(
            sysFlag: sysFlag, body: draft.body.count, topic: draft.topic.count, properties: properties.count)
        var largest = size
        if let growth = draft.growth { largest += growth + CommitLogRecord.topicLengthMax - draft.topic.count }
        guard Int64(largest + CommitLogRecord.blankSize) <= logFiles.fileSize else {
            return .refused(.messageTooLarge(limit: Int(logFiles.fileSize) - CommitLogRecord.blankSize))
        }
        var queueOffset = QueueOffset(0)
        if SysFlag.entersConsumeQueue(sysFlag) {
            let queue: ConsumeQueue
            switch queueForAppend(draft.topic, draft.queueID) {
            case .success(let found): queue = found
            case .failure(let refusal): return .refused(refusal)
            }
            queueOffset = queue.nextOffset
            queue.nextOffset += 1
        } else if Self.isForged(sysFlag, draft) {
            return .refused(.unreadable)
        }
        return .appended(
            appendRecord(draft, sysFlag: sysFlag, size: size, queueOffset: queueOffset, properties: properties))
    }

    /// Encodes a record that has been checked.
    @inline(__always)
    func appendRecord(
        _ draft: MessageDraft, sysFlag: Int32, size: Int, queueOffset: QueueOffset, properties: RecordProperties
    ) -> AppendResult {
        let now = clock()
        makeRoomInFile(size)
        let start = log.end
        encode(
            draft, sysFlag: sysFlag, size: size, queueOffset: queueOffset, now: now, flag: draft.flag,
            body: draft.body, properties: properties)
        lastStoreTimestamp = now
        statistics.putMessages += 1
        statistics.putBytes += Int64(size)
        return AppendResult(
            physicalOffset: start, size: size, queueOffset: queueOffset, count: 1, storeTimestamp: now)
    }

    /// What looks like a newer version of a message and does not come from `replace`.
    @inline(never)
    private static func isForged(_ sysFlag: Int32, _ draft: MessageDraft) -> Bool {
        SysFlag.transactionValue(sysFlag) == SysFlag.transactionRollbackType
            && [draft.properties, draft.propertiesSuffix].contains {
                MessageProperties.value(of: PropertyName.edit, in: $0) != nil
            }
    }

    /// Encodes the messages of a batch, all or none. `draft.body` is a sequence of `total size 4 | magic 4 | body CRC 4
    /// | flag 4 | body length 4, body | properties length 2, properties` (`MessageDecoder.encodeMessage`); the draft's
    /// properties are added to each message's.
    /// - Parameter physicalOffsets: gets one more offset per message after what it holds: a tick may have several
    ///   batches.
    package func appendBatch(_ draft: MessageDraft, physicalOffsets: inout [PhysicalOffset]) -> AppendOutcome {
        if let refusal = gate.refusal { return .refused(refusal) }
        let sysFlag = familyFlags(draft)
        guard SysFlag.transactionValue(sysFlag) == SysFlag.transactionNotType else {
            return .refused(.malformedBatch("a batch cannot be transactional"))
        }
        // First pass: everything is checked before anything is encoded.
        var total = 0
        var count = 0
        let checked = forEachInBatch(draft.body) { message in
            let properties = storedProperties(message.properties, draft.properties, draft).count
            if let refusal = checkSizes(draft, body: message.body.count, properties: properties) { return refusal }
            total += CommitLogRecord.size(
                sysFlag: sysFlag, body: message.body.count, topic: draft.topic.count, properties: properties)
            count += 1
            return nil
        }
        if let checked { return .refused(checked) }
        guard count > 0 else { return .refused(.malformedBatch("it holds no message")) }
        guard draft.body.count <= configuration.maxMessageSize else {
            return .refused(.messageTooLarge(limit: configuration.maxMessageSize))
        }
        guard Int64(total + CommitLogRecord.blankSize) <= logFiles.fileSize else {
            return .refused(.messageTooLarge(limit: Int(logFiles.fileSize) - CommitLogRecord.blankSize))
        }
        let queue: ConsumeQueue
        switch queueForAppend(draft.topic, draft.queueID) {
        case .success(let found): queue = found
        case .failure(let refusal): return .refused(refusal)
        }
        // RocketMQ keeps a batch in one file.
        makeRoomInFile(total)
        let now = clock()
        let firstQueueOffset = queue.nextOffset
        let start = log.end
        _ = forEachInBatch(draft.body) { message in
            let properties = storedProperties(message.properties, draft.properties, draft)
            physicalOffsets.append(log.end)
            encode(
                draft, sysFlag: sysFlag,
                size: CommitLogRecord.size(
                    sysFlag: sysFlag, body: message.body.count, topic: draft.topic.count, properties: properties.count),
                queueOffset: queue.nextOffset, now: now, flag: message.flag, body: message.body,
                properties: properties)
            queue.nextOffset += 1
            return nil
        }
        lastStoreTimestamp = now
        statistics.putMessages += Int64(count)
        statistics.putBytes += Int64(total)
        return .appended(
            AppendResult(
                physicalOffset: start, size: total, queueOffset: firstQueueOffset,
                count: count,
                storeTimestamp: now))
    }

    /// Slave: takes bytes of the master's log that belong at exactly `offset`. They may begin and end inside records
    /// and cross file ends. An empty store begins where the first bytes state, which must be the beginning of a file.
    package func appendReplicated(at offset: PhysicalOffset, _ bytes: UnsafeRawBufferPointer) -> ReplicatedAppendOutcome
    {
        if let refusal = gate.refusal { return .refused(expected: log.end, reason: refusal.description) }
        if logFiles.files.isEmpty, hot.isEmpty, log.end.rawValue == 0, offset.rawValue > 0 {
            guard offset == logFiles.base(of: offset) else {
                return .refused(
                    expected: logFiles.base(of: offset),
                    reason: "an empty store begins at the beginning of a file; is mappedFileSizeCommitLog the master's?"
                )
            }
            guard offset <= LogPosition.maximum else {
                return .refused(expected: PhysicalOffset(0), reason: "no log begins at \(offset)")
            }
            log.begin(at: offset)
        }
        guard offset == log.end else {
            return .refused(expected: log.end, reason: "the log continues elsewhere")
        }
        var done = 0
        while done < bytes.count {
            if log.end == log.fileEnd {
                hot.closeChunk()
                log.beginFile(logFiles.fileSize)
            }
            let part = Int(min(Int64(bytes.count - done), log.fileEnd - log.end))
            let target = hot.reserve(part, at: log.end)
            if let base = bytes.baseAddress { target.copyMemory(from: base + done, byteCount: part) }
            log.append(Int64(part))
            done += part
        }
        return .appended(next: log.end)
    }

    // MARK: - Encoding

    func checkSizes(_ draft: MessageDraft, body: Int, properties: Int) -> AppendRefusal? {
        if draft.topic.isEmpty || draft.topic.count > CommitLogRecord.topicLengthMax {
            return .topicLength(draft.topic.count)
        }
        if body > configuration.maxMessageSize, !draft.isCopy {
            return .messageTooLarge(limit: configuration.maxMessageSize)
        }
        if properties > Int(Int16.max) { return .propertiesTooLarge }
        return nil
    }

    func familyFlags(_ draft: MessageDraft) -> Int32 {
        var flag = draft.sysFlag & ~(SysFlag.bornHostV6 | SysFlag.storeHostAddressV6)
        if draft.bornHost.isIPv6 { flag |= SysFlag.bornHostV6 }
        if draft.storeHost.isIPv6 { flag |= SysFlag.storeHostAddressV6 }
        return flag
    }

    /// The queue, with what `rollback` needs noted down. Names and numbers of new queues are checked, known ones are
    /// found by their bytes.
    @inline(__always)
    private func queueForAppend(
        _ topic: UnsafeRawBufferPointer, _ queueID: Int32
    ) -> Result<ConsumeQueue, AppendRefusal> {
        let queue: ConsumeQueue
        if let known = table.find(topic, queueID) {
            queue = known
        } else {
            switch makeQueue(topic, queueID) {
            case .success(let made): queue = made
            case .failure(let refusal): return .failure(refusal)
            }
        }
        if queue.tickNumber != tickNumber {
            queue.tickNumber = tickNumber
            queue.rollbackOffset = queue.nextOffset
            tickQueues.append(queue)
        }
        return .success(queue)
    }

    @inline(never)
    func makeQueue(_ topic: UnsafeRawBufferPointer, _ queueID: Int32) -> Result<ConsumeQueue, AppendRefusal> {
        guard queueID >= 0 else { return .failure(.queueID(queueID)) }
        do throws(NameError) {
            let name = try TopicName(existing: topic)
            return .success(table.make(name, queueID, entriesPerFile: configuration.entriesPerConsumeQueueFile))
        } catch {
            return .failure(.topicName(error))
        }
    }

    /// Ends the current file with a blank record when `size` bytes and a later blank record do not fit.
    @inline(__always)
    private func makeRoomInFile(_ size: Int) {
        if log.end + Int64(size + CommitLogRecord.blankSize) <= log.fileEnd { return }
        if log.end < log.fileEnd {
            let blank = hot.reserve(CommitLogRecord.blankSize, at: log.end)
            BigEndian.store(Int32(log.fileEnd - log.end), blank, 0)
            BigEndian.store(CommitLogRecord.blankMagic, blank, 4)
            log.fillFile()
        }
        hot.closeChunk()
        log.beginFile(logFiles.fileSize)
    }

    @inline(__always)
    private func encode(
        _ draft: MessageDraft, sysFlag: Int32, size: Int, queueOffset: QueueOffset, now: Int64, flag: Int32,
        body: UnsafeRawBufferPointer, properties: RecordProperties
    ) {
        let target = hot.reserve(size, at: log.end)
        BigEndian.store(Int32(truncatingIfNeeded: size), target, 0)
        BigEndian.store(CommitLogRecord.magicV1, target, CommitLogRecord.magicPosition)
        BigEndian.store(CommitLogRecord.bodyCRC(body), target, CommitLogRecord.bodyCRCPosition)
        BigEndian.store(draft.queueID, target, CommitLogRecord.queueIDPosition)
        BigEndian.store(flag, target, CommitLogRecord.flagPosition)
        BigEndian.store(queueOffset.rawValue, target, CommitLogRecord.queueOffsetPosition)
        BigEndian.store(log.end.rawValue, target, CommitLogRecord.physicalOffsetPosition)
        BigEndian.store(sysFlag, target, CommitLogRecord.sysFlagPosition)
        BigEndian.store(draft.bornTimestamp, target, CommitLogRecord.bornTimestampPosition)
        var position = CommitLogRecord.bornHostPosition
        position += draft.bornHost.encode(target, position)
        BigEndian.store(now, target, position)
        position += 8
        position += draft.storeHost.encode(target, position)
        BigEndian.store(draft.reconsumeTimes, target, position)
        BigEndian.store(draft.preparedTransactionOffset, target, position + 4)
        BigEndian.store(Int32(truncatingIfNeeded: body.count), target, position + 12)
        position += 16
        position = copy(body, target, position)
        target.storeBytes(of: UInt8(truncatingIfNeeded: draft.topic.count), toByteOffset: position, as: UInt8.self)
        position = copy(draft.topic, target, position + 1)
        BigEndian.store(Int16(truncatingIfNeeded: properties.count), target, position)
        position = copy(properties.first, target, position + 2)
        if properties.isSeparated { position = separate(target, position) }
        position = copy(properties.second, target, position)
        if properties.hasChecksum {
            if properties.isClosed { position = separate(target, position) }
            position += PropCRC.size
        }
        precondition(position == size, "a record's parts do not add up to its size")
        if properties.hasChecksum { PropCRC.write(target, size: size) }
        log.append(Int64(size))
    }

    @inline(__always)
    private func copy(_ bytes: UnsafeRawBufferPointer, _ target: UnsafeMutableRawPointer, _ position: Int) -> Int {
        if let base = bytes.baseAddress { memcpy(target + position, base, bytes.count) }
        return position + bytes.count
    }

    @inline(__always)
    private func separate(_ target: UnsafeMutableRawPointer, _ position: Int) -> Int {
        target.storeBytes(of: MessageProperties.propertySeparator, toByteOffset: position, as: UInt8.self)
        return position + 1
    }

    // MARK: - Batches

    private struct BatchMessage {
        var flag: Int32
        var body: UnsafeRawBufferPointer
        var properties: UnsafeRawBufferPointer
    }

    /// Calls `visit` for each message of an encoded batch until it refuses one; nothing is trusted.
    private func forEachInBatch(
        _ batch: UnsafeRawBufferPointer, _ visit: (BatchMessage) -> AppendRefusal?
    ) -> AppendRefusal? {
        guard let base = batch.baseAddress else { return nil }
        var position = 0
        while position < batch.count {
            guard position + 20 <= batch.count else { return .malformedBatch("it ends inside a message") }
            let flag = BigEndian.load(base, position + 12, as: Int32.self)
            let bodyLength = Int(BigEndian.load(base, position + 16, as: Int32.self))
            position += 20
            guard bodyLength >= 0, bodyLength <= batch.count - position - 2 else {
                return .malformedBatch("a body of \(bodyLength) bytes does not fit into it")
            }
            let body = UnsafeRawBufferPointer(start: base + position, count: bodyLength)
            position += bodyLength
            let propertiesLength = Int(BigEndian.load(base, position, as: Int16.self))
            position += 2
            guard propertiesLength >= 0, propertiesLength <= batch.count - position else {
                return .malformedBatch("properties of \(propertiesLength) bytes do not fit into it")
            }
            let properties = UnsafeRawBufferPointer(start: base + position, count: propertiesLength)
            position += propertiesLength
            if let refusal = visit(BatchMessage(flag: flag, body: body, properties: properties)) { return refusal }
        }
        return nil
    }
}
