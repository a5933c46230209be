import Claims
import MessageModel
import MessageStore

/// Claims of what RocketMQ has handed out.
extension GroupClaims {
    /// Makes claims of messages that are in hand by RocketMQ's records. With those it has made already it does nothing:
    /// a start that was cut off is repeated.
    func takeOver(_ place: PopTakeover.Place) {
        let time = time
        guard let lowest = place.messages.first?.offset else { return }
        let table: ClaimTable
        let queueID = place.queue.queueID
        if let known = store.table(group: place.group.text, topic: place.topic.text, queueID: queueID) {
            // Of the time before RocketMQ had the store back: what it has not noted, it has worked off.
            if !isTaken(place.messages, in: known, at: time) { known.reset(to: lowest) }
            table = known
        } else {
            table = store.makeTable(group: place.group, topic: place.topic, queueID: queueID, at: lowest)
        }
        var run: [RevivedPops.Message] = []
        func claim() {
            guard let first = run.first, let last = run.last else { return }
            table.claim(
                run.map(\.offset), next: last.offset + 1, at: time,
                popTime: max(min(first.popTime, time.wall), table.popTimeMin),
                invisible: max(0, first.until -| time.wall),
                client: .unknown, attemptID: nil)
            run.removeAll(keepingCapacity: true)
        }
        for message in place.messages where message.offset >= table.next {
            if let first = run.first,
                (first.popTime, first.until) != (message.popTime, message.until)
                    || run.count >= Self.claimsOfARun
            {
                claim()
            }
            run.append(message)
        }
        claim()
        if table.next < place.end {
            table.claim(
                [], next: place.end, at: time, popTime: max(time.wall, table.popTimeMin), invisible: 0,
                client: .unknown, attemptID: nil)
        }
        commit(table)
    }

    /// Whether what lies below the table's end is in hand as RocketMQ has noted it.
    private func isTaken(_ messages: [RevivedPops.Message], in table: ClaimTable, at time: ClaimTime) -> Bool {
        messages.allSatisfy { message in
            guard message.offset < table.next else { return true }
            guard case .claimed(_, let popTime, _, _) = table.state(of: message.offset, at: time) else { return false }
            return popTime == message.popTime
        }
    }
}
