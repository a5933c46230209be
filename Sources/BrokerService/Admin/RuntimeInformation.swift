import LinuxSystem
import Logging
import MessageStore
import NIOCore
import RemotingProtocol
import SettingTable
import StoreFormat

/// What GET_BROKER_RUNTIME_INFO (28) answers. On the broker's event loop.
struct RuntimeInformation {
    let environment: BrokerEnvironment
    let tables: BrokerTables
    let storage: StoreAccess
    let kinds: MessageKinds
    let settings: BrokerSettings
    let notifier: GroupNotifier
    let leases: QueueLeases

    /// Groups shown one by one in the runtime information, which is made on the event loop; the totals count all.
    static let groupsShownMax = 1024

    /// What GET_BROKER_RUNTIME_INFO (28) answers, under RocketMQ's keys. Apus has no thread pools: their queues are
    /// empty by design and reported as empty.
    var information: [String: String] {
        let (store, gate, statistics) = (storage.store, storage.gate, storage.statistics)
        let configuration = environment.configuration
        let time = environment.now()
        let figures = store.runtimeInformation
        let seconds = max(0, time - statistics.bootMilliseconds) / 1000
        var table: [String: String] = [
            "brokerVersionDesc": "V4_9_8", "brokerVersion": "409", "bootTimestamp": String(statistics.bootMilliseconds),
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
            "commitLogMinOffset": String(figures.commitLogMinOffset),
            "commitLogMaxOffset": String(figures.commitLogMaxOffset),
            "dispatchBehindBytes": String(figures.dispatchBehindBytes),
            "remainHowManyDataToFlush": "\(figures.remainHowManyDataToFlush) B",
            "commitLogDiskRatio": String(figures.commitLogDiskRatio),
            "commitLogDiskRatio_\(store.configuration.commitLogPath)": String(figures.commitLogDiskRatio),
            "consumeQueueDiskRatio": String(figures.consumeQueueDiskRatio),
            "putMessageTimesTotal": String(figures.putMessageTimesTotal),
            "putMessageSizeTotal": String(figures.putMessageSizeTotal),
            "putMessageAverageSize": String(
                Double(figures.putMessageSizeTotal) / Double(max(1, figures.putMessageTimesTotal))),
            "putMessageDistributeTime": statistics.putTimes.distribution,
            "putMessageEntireTimeMax": String(statistics.putTimes.longest),
            "putLatency99": String(statistics.putTimes.percentile(0.99)),
            "putLatency999": String(statistics.putTimes.percentile(0.999)),
            "earliestMessageTimeStamp": String(store.earliestMessageTime),
            // Apus: the check after the start.
            "checkRemainingBytes": String(figures.checkRemainingBytes),
            "checkDamagedPlaces": String(figures.checkDamaged),
            "checkRepairedQueueEntries": String(figures.checkRepairedEntries),
            "checkWrongQueueEntries": String(figures.checkWrongEntries),
            "checkUnindexedMessages": String(figures.checkUnindexed),
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
        for (index, delivered) in kinds.schedule.committedOffsets.enumerated() where delivered > 0 {
            let end = store.consumeQueue(topic: TopicNames.schedule, queueID: Int32(index))?.maxOffset.rawValue
            table["scheduleMessageOffset_\(index + 1)"] = "\(delivered),\(end ?? 0)"
        }
        // Apus' own.
        let turns = environment.platform.longestTurns
        table["loopLongestTurnMicros"] = String(turns.ever.nanoseconds / 1000)
        table["loopLongestTurnOfLastMinuteMicros"] = String(turns.lastMinute.nanoseconds / 1000)
        table["slicesOfLongWork"] = String(environment.slices.slices)
        table["openTransactions"] = String(kinds.transactions.openCount)
        if tables.consumers.inconsistentCount > 0 {
            table["inconsistentGroups"] = String(tables.consumers.inconsistentCount)
            for group in tables.consumers.all.lazy.filter({ !$0.isConsistent }).prefix(Self.groupsShownMax) {
                table["inconsistentGroup_\(group.name)"] =
                    "skipped \(group.skipped) messages another client may want"
            }
        }
        table["deadLetters"] = String(notifier.consumerNotices.deadLetters)
        for (group, count) in notifier.consumerNotices.mostDeadLetters(of: Self.groupsShownMax) {
            table["deadLetters_\(group)"] = String(count)
        }
        for (place, text) in leases.listing { table["lease_\(place)"] = text }
        for (key, change) in settings.changed.changes {
            let file = change.file.map { "file: \($0)" } ?? "not in the file"
            table["changedSetting_\(key)"] = "\(change.value) (\(file))"
        }
        table["timerMessagesInMemory"] = String(kinds.timers.nearCount)
        table["undeliverableMessages"] = String(kinds.undeliverable.count)
        table["timerMessagesDelivered"] = String(kinds.timers.deliveredCount)
        if let space = try? environment.disk.space(configuration.storePathRootDir) {
            func gibibytes(_ bytes: Int64) -> String { "\(Double(bytes / 107_374_182) / 10) GiB" }
            table["commitLogDirCapacity"] = "Total : \(gibibytes(space.total)), Free : \(gibibytes(space.available))."
        }
        return table
    }
}
