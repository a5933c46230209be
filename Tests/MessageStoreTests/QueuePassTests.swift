import LinuxSystem
import MessageModel
import StoreFormat
import Testing

@testable import MessageStore

@Suite struct QueuePassTests {
    private func queues(_ count: Int32) throws -> [ConsumeQueue] {
        var table = QueueTable()
        let topic = try TopicName("T")
        return (0..<count).map { table.make(topic, $0, entriesPerFile: 100) }
    }

    @Test func aPassCoversWhatWasDispatchedWhenItBegan() throws {
        var pass = QueuePass()
        pass.open(now: 1000, dispatched: PhysicalOffset(100))
        #expect(!pass.isRunning && pass.millisecondsSinceBegin(1500) == 500)
        pass.begin(now: 2000, dispatched: PhysicalOffset(900), dirty: try queues(2))
        #expect(pass.isRunning && pass.hasQueues && pass.dispatched == PhysicalOffset(900))
        while let queue = pass.nextQueue() { pass.noteWritten(queue) }
        pass.end()
        #expect(!pass.isRunning && pass.millisecondsSinceBegin(2500) == 500)
    }

    /// The pass goes on when the other thread has done its work, and once only.
    @Test func aPassWaitsForAJob() throws {
        var pass = QueuePass()
        let queues = try queues(3)
        pass.begin(now: 0, dispatched: PhysicalOffset(1), dirty: queues)
        let firstFound = pass.nextQueue()
        let first = try #require(firstFound)
        pass.waitForFiles([first])
        pass.wait { _ in }
        #expect(pass.isWaiting)
        let completions = [pass.resume() != nil, pass.resume() != nil]
        #expect(completions == [true, false] && !pass.isWaiting)
        pass.add(pass.takeWaiting())
        let again = pass.nextQueue()
        #expect(again === first)
    }

    /// Nothing is lost: what was not written is handed back.
    @Test func aPassThatFailsHandsItsQueuesBack() throws {
        var pass = QueuePass()
        let queues = try queues(4)
        pass.begin(now: 0, dispatched: PhysicalOffset(1), dirty: queues)
        let firstFound = pass.nextQueue()
        let first = try #require(firstFound)
        let left = pass.abandon()
        #expect(left.count == 3 && !left.contains { $0 === first } && !pass.isRunning)
        pass.begin(now: 0, dispatched: PhysicalOffset(1), dirty: left)
        let secondFound = pass.nextQueue()
        let second = try #require(secondFound)
        pass.waitForFiles([second])
        pass.wait { _ in }
        let closed = pass.close()
        let completion = pass.resume()
        #expect(closed.count == 3 && completion == nil)
    }
}
