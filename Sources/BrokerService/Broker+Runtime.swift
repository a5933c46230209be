import Glibc
import LinuxSystem
import MessageModel
import MessageStore
import NIOCore
import SettingTable
import StoreFormat

extension Broker {
    /// Whether the queue's first message is so far behind the log's end that a slave should serve it
    /// (RocketMQ's `checkInDiskByConsumeOffset` of offset 0).
    func isFirstMessageOnDisk(_ queue: ConsumeQueue?) -> Bool {
        guard let queue, let first = store.entries(queue, from: QueueOffset(0), maxCount: 1).first else { return false }
        let memory = Int64(sysconf(Int32(_SC_PHYS_PAGES))) * Int64(sysconf(Int32(_SC_PAGESIZE)))
        let inMemory = memory / 100 * Int64(store.configuration.accessMessageInMemoryMaxRatio)
        return store.writtenOffset.rawValue - first.physicalOffset.rawValue > inMemory
    }

    /// A message has been stored in a dead-letter topic.
    func deadLetter(in topic: TopicEntry, _ queueId: Int32, _ result: AppendResult, tries: Int32) {
        let group = String(topic.name.dropFirst(TopicName.deadLetterPrefix.count))
        consumerNotices.deadLetter(
            group: group, place: "queue \(queueId) offset \(result.queueOffset)", tries: tries, now: now(), logger)
    }

    /// Pulls that wait for a message or for the filter worker.
    package var heldPulls: Int { hold.count }

    /// One line for `apus status`.
    package var statusLine: String {
        let time = now()
        let put = statistics.putTps(now: time).split(separator: " ").first.map(String.init) ?? "0"
        return "\(configuration.brokerName) put \(statistics.putTotal) get \(statistics.getTotal) "
            + "(\(Double(put).map { String(Int($0)) } ?? put)/s in), held pulls \(hold.count)"
    }

    /// Why it takes no messages at present, with the remedy, for people; nil when its store takes them.
    package var trouble: String? { store.notWritable.map { "takes no messages: \($0)" } }

    /// Hands over which connected consumer groups depend on filter plugins, sorted: at once, or after some turns of the event loop. Does
    /// nothing while it is still looking for an earlier call.
    package func reportPluginSubscriptions(_ report: @escaping ([PluginSubscription]) -> Void) {
        guard !isLookingForPluginSubscriptions else { return }
        guard filters.hasPluginExpressions else { return report([]) }
        isLookingForPluginSubscriptions = true
        consumers.pluginSubscriptions(in: slices) { [unowned self] found in
            isLookingForPluginSubscriptions = false
            report(found)
        }
    }

    /// Groups shown one by one in the runtime information, which is made on the event loop; the totals count all.
    static let groupsShownMax = 1024

    /// What GET_BROKER_RUNTIME_INFO (28) answers, under RocketMQ's keys. Apus has no thread pools: their queues are
    /// empty by design and said to be.
    var runtimeInformation: [String: String] {
        let time = now()
        let store = self.store.runtimeInformation
        let seconds = max(0, time - statistics.bootMillis) / 1000
        var table: [String: String] = [
            "brokerVersionDesc": "V4_9_8", "brokerVersion": "409", "bootTimestamp": String(statistics.bootMillis),
            "runtime": "[ \(seconds / 86_400) days, \(seconds / 3600 % 24) hours, \(seconds / 60 % 60) minutes, "
                + "\(seconds % 60) seconds ]",
            "startAcceptSendRequestTimeStamp": String(configuration.startAcceptSendRequestTimeStamp),
            "putTps": statistics.putTps(now: time), "getFoundTps": statistics.getFoundTps(now: time),
            "getMissTps": statistics.getMissTps(now: time), "getTotalTps": statistics.getTotalTps(now: time),
            "getTransferedTps": statistics.getTransferedTps(now: time),
            // RocketMQ 5's spelling, which its exportMetrics splits.
            "getTransferredTps": statistics.getTransferedTps(now: time),
            "msgPutTotalTodayNow": String(statistics.putTotal), "msgGetTotalTodayNow": String(statistics.getTotal),
            "msgPutTotalTodayMorning": String(statistics.todayMorning.put),
            "msgGetTotalTodayMorning": String(statistics.todayMorning.get),
            "msgPutTotalYesterdayMorning": String(statistics.yesterdayMorning.put),
            "msgGetTotalYesterdayMorning": String(statistics.yesterdayMorning.get),
            "commitLogMinOffset": String(store.commitLogMinOffset),
            "commitLogMaxOffset": String(store.commitLogMaxOffset),
            "dispatchBehindBytes": String(store.dispatchBehindBytes),
            "remainHowManyDataToFlush": "\(store.remainHowManyDataToFlush) B",
            "commitLogDiskRatio": String(store.commitLogDiskRatio),
            "commitLogDiskRatio_\(self.store.configuration.commitLogPath)": String(store.commitLogDiskRatio),
            "consumeQueueDiskRatio": String(store.consumeQueueDiskRatio),
            "putMessageTimesTotal": String(store.putMessageTimesTotal),
            "putMessageSizeTotal": String(store.putMessageSizeTotal),
            "putMessageAverageSize": String(
                Double(store.putMessageSizeTotal) / Double(max(1, store.putMessageTimesTotal))),
            "putMessageDistributeTime": statistics.putTimes.distribution,
            "putMessageEntireTimeMax": String(statistics.putTimes.longest),
            "putLatency99": String(statistics.putTimes.percentile(0.99)),
            "putLatency999": String(statistics.putTimes.percentile(0.999)),
            "earliestMessageTimeStamp": String(self.store.earliestMessageTime),
            // Apus: the check behind the start.
            "checkRemainingBytes": String(store.checkRemainingBytes),
            "checkDamagedPlaces": String(store.checkDamaged),
            "checkRepairedQueueEntries": String(store.checkRepairedEntries),
            "checkWrongQueueEntries": String(store.checkWrongEntries),
            "checkUnindexedMessages": String(store.checkUnindexed),
        ]
        for key in [
            "pullThreadPoolQueueSize",
            "queryThreadPoolQueueSize", "EndTransactionQueueSize", "pageCacheLockTimeMills",
            "sendThreadPoolQueueHeadWaitTimeMills", "pullThreadPoolQueueHeadWaitTimeMills",
            "queryThreadPoolQueueHeadWaitTimeMills", "putMessageFailedTimes",
            "getMessageEntireTimeMax", "dispatchMaxBuffer", "remainTransientStoreBufferNumbs",
        ] {
            table[key] = "0"
        }
        for (key, capacity) in [
            ("sendThreadPoolQueueSize", gate.waitingCount),
            ("sendThreadPoolQueueCapacity", configuration.sendsWaitingMax), ("pullThreadPoolQueueCapacity", 100_000),
            ("queryThreadPoolQueueCapacity", 20_000), ("EndTransactionThreadPoolQueueCapacity", 100_000),
        ] {
            table[key] = String(capacity)
        }
        for (index, delivered) in schedule.committedOffsets.enumerated() where delivered > 0 {
            let end = self.store.consumeQueue(topic: TopicNames.schedule, queueId: Int32(index))?.maxOffset.rawValue
            table["scheduleMessageOffset_\(index + 1)"] = "\(delivered),\(end ?? 0)"
        }
        // Apus' own.
        let turns = longestTurns()
        table["loopLongestTurnMicros"] = String(turns.ever.nanoseconds / 1000)
        table["loopLongestTurnOfLastMinuteMicros"] = String(turns.lastMinute.nanoseconds / 1000)
        table["slicesOfLongWork"] = String(slices.slices)
        table["openTransactions"] = String(transactions.openCount)
        if consumers.inconsistentCount > 0 {
            table["inconsistentGroups"] = String(consumers.inconsistentCount)
            for group in consumers.all.lazy.filter({ !$0.isConsistent }).prefix(Self.groupsShownMax) {
                table["inconsistentGroup_\(group.name)"] =
                    "passed over \(group.passedOver) messages another client may want"
            }
        }
        table["deadLetters"] = String(consumerNotices.deadLetters)
        for (group, count) in consumerNotices.mostDeadLetters(of: Self.groupsShownMax) {
            table["deadLetters_\(group)"] = String(count)
        }
        for (key, change) in changedSettings.changes {
            let file = change.file.map { "file: \($0)" } ?? "not in the file"
            table["changedSetting_\(key)"] = "\(change.value) (\(file))"
        }
        table["timerMessagesInMemory"] = String(timerMessages.nearCount)
        table["undeliverableMessages"] = String(undeliverable.count)
        table["timerMessagesDelivered"] = String(timerMessages.deliveredCount)
        if let space = try? disk.space(configuration.storePathRootDir) {
            func gibibytes(_ bytes: Int64) -> String { "\(Double(bytes / 107_374_182) / 10) GiB" }
            table["commitLogDirCapacity"] = "Total : \(gibibytes(space.total)), Free : \(gibibytes(space.available))."
        }
        return table
    }
}
