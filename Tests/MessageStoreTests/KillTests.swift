import Foundation
import LinuxSystem
import Logging
import StoreFormat
import TestDisk
import Testing

@testable import MessageStore

/// A real process, a real disk, `kill -9` at random moments: nothing acknowledged is missing or changed, no queue has a
/// hole. Each round goes on with the store the round before left. `APUS_KILL_ROUNDS` sets the number of rounds.
@Suite struct KillTests {
    static var rounds: Int { ProcessInfo.processInfo.environment["APUS_KILL_ROUNDS"].flatMap { Int($0) } ?? 20 }

    /// Beside the other products of this build.
    static func program() throws -> String {
        let environment = ProcessInfo.processInfo.environment
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().path
        let candidates = [
            environment["APUS_STORE_BENCH"], root + "/.build/debug/StoreBench", root + "/.build/release/StoreBench",
        ]
        return try #require(candidates.compactMap { $0 }.first { FileManager.default.isExecutableFile(atPath: $0) })
    }

    @Test func nothingAcknowledgedIsLost() throws {
        let folder = try TemporaryFolder()
        let program = try Self.program()
        let seed = CrashTests.seed
        var random = SeededGenerator(seed: seed)
        var configuration = StoreConfiguration.small(folder.path + "/store")
        configuration.mappedFileSizeCommitLog = 256 * 1024
        var known = 0
        for round in 0..<Self.rounds {
            let process = Process()
            process.executableURL = URL(fileURLWithPath: program)
            process.arguments = ["victim", configuration.storePathRootDir]
            let pipe = Pipe()
            process.standardOutput = pipe
            try process.run()
            // The pipe is read so that the victim never waits; it is killed after a random number of bytes or time.
            let limit = Int.random(in: 1...4000, using: &random)
            var text = Data()
            while text.count < limit {
                let piece = pipe.fileHandleForReading.availableData
                if piece.isEmpty { break }
                text += piece
            }
            kill(process.processIdentifier, SIGKILL)
            text += pipe.fileHandleForReading.readDataToEndOfFile()
            process.waitUntilExit()
            #expect(
                process.terminationReason == .uncaughtSignal,
                "APUS_SEED=\(seed) round \(round): the victim ended by itself")
            // The last line may be cut.
            let acknowledged =
                String(decoding: text, as: UTF8.self).split(separator: "\n", omittingEmptySubsequences: true).dropLast()
                .last.flatMap { Int($0) } ?? known

            let loop = OwnerLoop()
            let store = MessageStore(
                configuration: configuration, disk: RealDisk(),
                logger: Logger(label: "store") { _ in SwiftLogNoOpLogHandler() },
                executor: { loop.post($0) })
            try store.open()
            var count = 0
            for queueID: Int32 in 0..<4 {
                guard let queue = store.consumeQueue(topic: "Victim", queueID: queueID) else { continue }
                #expect(queue.minOffset.rawValue == 0)
                // What a round before has seen is looked at again in the last one.
                let start = round == Self.rounds - 1 ? 0 : max(0, known / 4 - 100)
                var offset = start
                for entry in store.entries(queue, from: QueueOffset(Int64(start)), maxCount: .max) {
                    let number = offset * 4 + Int(queueID)
                    offset += 1
                    // The victim edits every third message and deletes every fifteenth, before it sends those that
                    // come 40 later.
                    let mustBeEdited = number % 3 == 0 && number < acknowledged - 40
                    guard entry != .deleted else {
                        #expect(number % 15 == 0, "APUS_SEED=\(seed) round \(round): message \(number) is deleted")
                        continue
                    }
                    let range = LogRange(start: entry.physicalOffset, length: Int(entry.recordSize), count: 1)
                    let record = try #require(store.withBytes(range) { Record(Array($0)[...]) } ?? nil)
                    let sent = Array("\(number) ".utf8) + Array(repeating: 118, count: number * 7 % 900)
                    let edited = Array("\(number) edited".utf8)
                    let isRight =
                        record.body == sent
                        ? !mustBeEdited : record.body == edited && number % 3 == 0 && number % 15 != 0
                    #expect(
                        isRight && record.queueOffset == offset - 1,
                        "APUS_SEED=\(seed) round \(round): \(queueID) at \(offset - 1) is another message")
                }
                count += offset
            }
            #expect(
                count >= acknowledged,
                "APUS_SEED=\(seed) round \(round): \(acknowledged) were acknowledged, \(count) are there")
            known = count
            if random.chance(30) {
                try store.close()
            } else {
                store.abandon()
            }
        }
        print("killed \(Self.rounds) times, \(known) messages")
    }
}
