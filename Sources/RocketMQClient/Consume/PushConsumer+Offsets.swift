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

    /// Commits again where the broker has less than was committed. A pull that was on its way when the consumer closed
    /// has the offset of its own moment, and may arrive after the commit.
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

    /// What is sent when this call has returned is not before the end. A queue whose broker is away begins by the time.
    ///
    /// - Throws: why no broker has answered.
    func noteEnds(_ queues: [MessageQueue]) async throws(RocketMQClientError) {
        var away: [String: RocketMQClientError] = [:]
        var isAnyKnown = false
        for queue in queues where broadcastOffsets[queue] == nil && away[queue.brokerName] == nil {
            do throws(RocketMQClientError) {
                broadcastOffsets[queue] = try await access.offset(.last, of: queue)
                isAnyKnown = true
            } catch {
                away[queue.brokerName] = error
            }
        }
        if !isAnyKnown, let error = away.values.first { throw error }
        for (broker, error) in away { warn("broker \(broker): \(error)") }
    }

    func firstOffset(_ possession: Possession) async throws(RocketMQClientError) -> Int64 {
        let queue = possession.queue
        let isRetry = queue.topic == retryTopic
        if isBroadcasting {
            if let known = broadcastOffsets[queue] { return known }
            if options.start == .last {
                // It was not there, or its broker away, when this consumer was started: what was sent since is wanted.
                let time = startedAt - Self.clockSlack
                possession.notBefore = time
                return try await access.offset(.time(milliseconds: time), of: queue)
            }
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
