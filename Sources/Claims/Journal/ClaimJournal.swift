/// What a table's entries in the present journal are relative to.
struct JournalReference {}

/// Stub.
final class ClaimJournal {
    func define(_ table: ClaimTable) {}
    func remove(_ table: ClaimTable) {}
    func retain(_ table: ClaimTable, from min: Int64) {}
    func claim(
        _ table: ClaimTable, _ offsets: [Int64], next: Int64, popTime: Int64, wall: Int64, invisible: Int64,
        client: ClaimClient, attemptID: [UInt8]?
    ) {}
    func reclaim(
        _ table: ClaimTable, _ offset: Int64, popTime: Int64, wall: Int64, invisible: Int64, client: ClaimClient,
        attemptID: [UInt8]?
    ) {}
    func finish(_ table: ClaimTable, _ offset: Int64) {}
    func abandon(_ table: ClaimTable, _ offset: Int64, wall: Int64) {}
    func change(_ table: ClaimTable, _ offset: Int64, popTime: Int64, wall: Int64, invisible: Int64) {}
    func reset(_ table: ClaimTable, to offset: Int64) {}
    func reopen(_ table: ClaimTable, popTime: Int64, wall: Int64, invisible: Int64, client: ClaimClient) {}
}
