import FastJSON
import RemotingProtocol

extension PushConsumer {
    func commitAll() async {
        for possession in possessions.values { await commit(possession) }
        if isBroadcasting, let path = options.broadcastOffsetsFile {
            do throws(RocketMQClientError) {
                try broadcastOffsets.write(to: path)
            } catch {
                warn("offsets of the group are not kept, messages may come again: \(error)")
            }
        }
    }

    /// Commits again where the broker has less than was committed: a pull that was on its way when the consumer closed
    /// brings the offset of its own moment along, and may arrive after the commit.
    func confirmCommits() async {
        guard !isBroadcasting else { return }
        for possession in possessions.values {
            guard let committed = possession.committed, let pulled = possession.committedByPull, pulled < committed,
                let known = try? await access.committedOffset(of: possession.queue), known < committed
            else { continue }
            possession.committed = known
            await commit(possession)
        }
    }

    func commit(_ possession: Possession) async {
        guard let offset = possession.window?.committable, offset != possession.committed else { return }
        guard !isBroadcasting else {
            broadcastOffsets[possession.queue] = offset
            possession.committed = offset
            return
        }
        do throws(RocketMQClientError) {
            try await access.commit(offset, of: possession.queue, timeout: .seconds(2))
            possession.committed = offset
        } catch {
            warn("offset \(offset) of \(possession.queue) not committed, messages may come again: \(error)")
        }
    }

    func firstOffset(_ queue: MessageQueue) async throws(RocketMQClientError) -> Int64 {
        let isRetry = queue.topic == retryTopic
        if isBroadcasting {
            if let known = broadcastOffsets[queue] { return known }
        } else if let known = try await access.committedOffset(of: queue) {
            // Brokers also answer 0 for a new group on a young queue; then an explicit wish counts.
            if known > 0 || options.start == nil || isRetry { return known }
        }
        return try await access.offset(isRetry ? .first : options.start ?? .first, of: queue)
    }

    /// An operator sets the group's offsets (220).
    func reset(_ offsets: [MessageQueue: Int64]) async {
        for (queue, offset) in offsets {
            guard let possession = possessions[queue] else { continue }
            await giveUp(possession, commits: false)
            if isBroadcasting {
                broadcastOffsets[queue] = offset
                continue
            }
            do throws(RocketMQClientError) {
                try await access.commit(offset, of: queue)
            } catch {
                warn("offset \(offset) of \(queue), as an operator wants it, not committed: \(error)")
            }
        }
    }

    static func offsets(in request: RemotingCommand) -> [MessageQueue: Int64] {
        var offsets: [MessageQueue: Int64] = [:]
        guard let table = (try? request.json())?["offsetTable"] else { return [:] }
        for member in table.object?.members ?? [] {
            if let queue = MessageQueue(key: member.key), let offset = member.value.integer { offsets[queue] = offset }
        }
        return offsets
    }
}
