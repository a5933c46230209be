import RemotingProtocol

/// How much may be noted at once for answers that have a row for each queue of groups (208, 317), or for each client
/// (203, 204, 328). Confined to the broker's event loop.
final class RowBounds {
    /// Of one answer: their text is about 16 MiB, and no client takes a larger frame.
    static let rowsMax = 150_000
    /// Of all answers under way. One of up to `rowsAlways`, which is two topics of 4096 queues, is made nevertheless.
    static let rowsOfAllMax = 300_000
    static let rowsAlways = 8192
    static let answersMax = 64

    /// What is noted for one answer.
    final class Rows {
        fileprivate(set) var count = 0
        /// Bytes their text has at least.
        private var bytes = 0
        /// Another thread makes the text: the rows stay until it is made, also when the client has gone.
        var isMadeToText = false
        private let isGone: () -> Bool

        fileprivate init(isGone: @escaping () -> Bool) { self.isGone = isGone }

        func note(bytes: Int = 0) {
            count += 1
            self.bytes += bytes
        }

        fileprivate var isDropped: Bool { isGone() && !isMadeToText }
        fileprivate var isTooMany: Bool { count > RowBounds.rowsMax || bytes > TableAnswers.bytesMax }
    }

    private var underWay: [Rows] = []

    /// Answers under way, those of clients that have gone left out.
    var count: Int {
        underWay.removeAll(where: \.isDropped)
        return underWay.count
    }

    /// - Parameter isGone: its client has closed, so that no slice works for it any more.
    /// - Returns: `nil` when too many are under way; `busy` says so.
    func begin(isGone: @escaping () -> Bool) -> Rows? {
        guard count < Self.answersMax else { return nil }
        let rows = Rows(isGone: isGone)
        underWay.append(rows)
        return rows
    }

    func end(_ rows: Rows) { underWay.removeAll { $0 === rows } }

    /// Why an answer is not made; asked in each slice.
    func refusal(of rows: Rows) -> (ResponseCode, String)? {
        if rows.isTooMany { return (.systemError, Self.tooMany) }
        guard rows.count > Self.rowsAlways, count > 1 else { return nil }
        return underWay.reduce(0) { $0 + $1.count } > Self.rowsOfAllMax ? (.systemBusy, Self.busy) : nil
    }

    static let tooMany =
        "the answer would have more than \(rowsMax) queues or clients, or more than \(TableAnswers.bytesMax) bytes, "
        + "and no client takes it in one frame: ask for one group (mqadmin consumerProgress -g), or for one topic of it"
    static let busy = "too many large tables are being made for other clients: ask again in a moment"
}
