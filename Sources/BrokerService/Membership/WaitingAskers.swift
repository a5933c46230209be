import RemotingTransport

/// Requests that wait for a peer's answer, by the connection they came from. One that has many of them is not read from
/// until some are answered. Confined to the broker's event loop.
final class WaitingAskers {
    private let max: Int
    private var counts: [ObjectIdentifier: Int] = [:]

    /// - Parameter max: of one connection, at most.
    init(max: Int) { self.max = max }

    /// A request begins to wait. Its connection must be there until it ends.
    /// - Parameter weight: as so many it counts.
    func begin(_ connection: RemotingConnection, weight: Int = 1) {
        let count = (counts[ObjectIdentifier(connection)] ?? 0) + weight
        counts[ObjectIdentifier(connection)] = count
        connection.answersOwed += 1
        if count >= max { connection.awaitsAnswer = true }
    }

    /// It is answered, or its connection has closed.
    func end(_ connection: RemotingConnection, weight: Int = 1) {
        let before = counts[ObjectIdentifier(connection)] ?? 0
        precondition(before >= weight, "a request ends once")
        counts[ObjectIdentifier(connection)] = before > weight ? before - weight : nil
        connection.answersOwed -= 1
        if before >= max, before - weight < max { connection.awaitsAnswer = false }
    }
}
