import RemotingProtocol

extension PushConsumer {
    func pullLoop(_ possession: Possession) async {
        var backOff = BackOff(first: .milliseconds(20), longest: .seconds(1))
        while owns(possession), !possession.isStopped {
            do throws(RocketMQClientError) {
                if possession.window == nil {
                    let offset = try await firstOffset(possession)
                    guard owns(possession) else { return }
                    possession.window = OffsetWindow(start: offset)
                    possession.committed = offset
                    runningInfo.reached(offset, of: possession.queue)
                }
                guard hasRoom(possession) else {
                    await withCheckedContinuation { possession.whenRoom = $0 }
                    continue
                }
                let asked = ContinuousClock.now
                let result = try await access.pull(query(possession))
                guard owns(possession) else { return }
                possession.brokerID = result.suggestedBrokerID
                if !result.messages.isEmpty {
                    runningInfo.pulled(
                        result.messages.count, from: possession.queue, in: asked.duration(to: .now))
                }
                received(result, possession)
                backOff.reset()
            } catch {
                guard owns(possession) else { return }
                possession.brokerID = 0
                switch error.refusal {
                case .subscriptionParseFailed, .noPermission, .topicNotExist:
                    onEvent(.failed(possession.queue, error))
                    try? await Task.sleep(for: Self.pauseAfterRefusal)
                default:
                    warn("\(possession.queue): \(error)")
                    try? await Task.sleep(for: backOff.next())
                }
                guard owns(possession) else { return }
                // The broker may be a new process that knows nothing of this member.
                await heartbeatQuietly()
            }
        }
    }

    func hasRoom(_ possession: Possession) -> Bool {
        (possession.window?.outstanding ?? 0) < options.waitingMessagesMax
            && possession.waitingBytes < options.waitingBytesMax
    }

    func query(_ possession: Possession) -> QueueAccess.Query {
        var query = QueueAccess.Query(possession.queue, offset: possession.window?.nextPull ?? 0)
        query.messagesMax = options.pullBatchSize
        query.wait = options.pullWait
        query.commit = isBroadcasting ? nil : possession.window?.committable
        possession.committedByPull = query.commit
        query.brokerID = possession.brokerID
        if let subscription = possession.subscription {
            query.expression = subscription.expression
            query.expressionType = subscription.expressionType
            query.version = subscription.version
        }
        return query
    }

    func received(_ result: PullResult, _ possession: Possession) {
        if result.status == .offsetMoved {
            warn("\(possession.queue): the broker moved the offset to \(result.nextOffset)")
        }
        let messages = result.messages.filter {
            $0.storeTimestamp >= possession.notBefore && possession.subscription?.selects($0) ?? true
        }
        possession.window?.pulled(messages.map(\.queueOffset), next: result.nextOffset)
        possession.waitingBytes += messages.reduce(0) { $0 + $1.body.count }
        noteReached(possession)
        guard !messages.isEmpty else { return }
        if isOrdered {
            possession.waiting += messages
            if !possession.isConsumed {
                possession.isConsumed = true
                Task { await consumeInOrder(possession) }
            }
        } else {
            enqueue(messages, possession)
        }
    }

    func noteReached(_ possession: Possession) {
        guard !possession.isDropped, let window = possession.window else { return }
        runningInfo.reached(window.committable, of: possession.queue)
    }
}
