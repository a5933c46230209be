import Logging
import Supervision
import TestTools
import Testing
import WorkerProtocol

@Suite struct MembershipTests {
    private static let second = WorkerID(.brokerStore, 1)
    private static let secondReplication = WorkerID(.replication, 1)

    @Test func aBrokerJoins() {
        var driver = Driver.running()
        #expect(
            driver.handle(.changed(added: [Self.second, Self.secondReplication], removed: [])) == [
                .extend(filter), .spawn(Self.second), .spawn(Self.secondReplication),
                .introduce(WorkerPair(a: broker, b: Self.second)),
                .introduce(WorkerPair(a: Self.second, b: Self.secondReplication)),
                .introduce(WorkerPair(a: Self.second, b: filter)), .send(Self.second, .setupDone),
                .send(Self.secondReplication, .setupDone),
            ])
        _ = driver.ready(Self.second)
        _ = driver.ready(Self.secondReplication)
        #expect(driver.state.statusLine == "6 of 6 workers ready")
    }

    @Test func aBrokerLeavesInOrder() {
        var driver = Driver.running([nameserver, broker, Self.second, replication, Self.secondReplication, filter])
        #expect(
            driver.handle(.changed(added: [], removed: [Self.second, Self.secondReplication])) == [
                .removeListeners(Self.second), .send(Self.second, .drain(.leave)),
            ])
        #expect(
            driver.handle(.exited(Self.second, .code(0))) == [
                .removeListeners(Self.second), .removeListeners(Self.secondReplication),
                .send(Self.secondReplication, .drain(.leave)),
            ])
        #expect(
            driver.handle(.exited(Self.secondReplication, .code(0))) == [.removeListeners(Self.secondReplication)])
        #expect(driver.state.statusLine == "4 of 4 workers ready")
        #expect(!driver.pass(60_000).contains(.spawn(Self.second)))
    }
}
