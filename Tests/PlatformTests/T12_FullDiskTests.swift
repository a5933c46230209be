import Foundation
import RemotingProtocol
import StoreJudge
import TestTools
import Testing

extension PlatformTests {
    /// A real filesystem, filled to the last byte while clients send and consume.
    @Suite(
        "T12 full disk", .serialized,
        .enabled(if: SmallDisk.whyNot == nil, "\(SmallDisk.whyNot ?? "")"))
    struct T12_FullDisk {
        /// Small files; the disk is looked at once at the start only, so that it is the writes that meet its end; and
        /// nothing is deleted to make room, for the test wants everything back.
        static let settings = [
            "--set", "mappedFileSizeCommitLog=1048576", "--set", "mappedFileSizeConsumeQueue=20000", "--set",
            "maxHashSlotNum=1000", "--set", "maxIndexNum=100000", "--set", "cleanResourceInterval=3600000", "--set",
            "diskReservedBytes=0", "--set", "cleanFileForciblyEnable=false", "--set", "allocateAheadBytes=0", "--set",
            "flushDiskType=SYNC_FLUSH",
        ]
        static let topic = "Full"
        /// For whatever must happen at all; how long it took is printed where it matters.
        static let patience = Duration.seconds(60)

        private static func checkRemark(_ oracle: Oracle, since start: Int) {
            let refusals = oracle.refusals.dropFirst(start)
            for refusal in refusals {
                let tells = ["code 14 ", "/commitlog", "is full", " % of ", "MiB free", "fileReservedTime"]
                #expect(tells.allSatisfy { refusal.contains($0) }, "\(refusal)")
            }
            print("T12 refused \(refusals.count) sends: \(refusals.last ?? "")")
        }

        private static func checkStored(_ platform: Platform, _ oracle: Oracle) async throws {
            let acknowledged = oracle.acknowledged
            let stored = try await Oracle.stored(broker: platform.broker, topic: topic, queues: 4)
            let lost = acknowledged.subtracting(stored)
            #expect(lost.isEmpty, "\(lost.count) of \(acknowledged.count) acknowledged are lost: \(lost.prefix(3))")
        }

        /// `apus status` ends with 1 while no messages are taken, and says why; with 0 when they are.
        private static func checkStatus(_ platform: Platform, _ disk: SmallDisk, isFull: Bool) async throws {
            var last: (status: Int32, lines: [String], errorText: String)?
            do {
                try await eventually("apus status ends with \(isFull ? 1 : 0)", within: patience) {
                    let shown = try await Program.run(
                        disk.launcher[0],
                        disk.launcher.dropFirst() + [Binaries.apus, "status", "--data-dir", platform.data])
                    last = shown
                    return shown.status == (isFull ? 1 : 0)
                }
            } catch {
                throw ScenarioFailure("\(error): \(String(describing: last))")
            }
            let row = last?.lines.first { $0.hasPrefix("broker-store-0") } ?? ""
            #expect(row.contains("takes no messages: ") == isFull, "\(row)")
            if isFull { #expect(row.contains("MiB free") && row.contains(" ready "), "\(row)") }
        }

        /// Sends are refused in words, reads go on.
        private static func meetTheEnd(_ platform: Platform, _ disk: SmallDisk, _ oracle: Oracle) async throws {
            let refusals = oracle.refusals.count
            try disk.fill()
            try await eventually("sends are refused", within: patience) { oracle.refusals.count > refusals + 20 }
            // Whatever a cleaned-up write gave back is taken too.
            try disk.fill()
            let count = oracle.acknowledged.count
            // Time passes under load on the full disk.
            try await Task.sleep(for: .seconds(2))
            checkRemark(oracle, since: refusals)
            try await checkStatus(platform, disk, isFull: true)
            try await checkStored(platform, oracle)
            let read = try await platform.apus([
                "consume", "--topic", topic, "--group", "late-\(count)", "--from", "first", "--timeout", "3",
            ])
            #expect(read.lines.count >= count, "apus consume on a full disk: \(read.lines.count) of \(count)")
        }

        @Test(
            "filled to the last byte: 14 in words, reads go on, service returns by itself, kill -9 and restart on the full disk",
            .timeLimit(.minutes(6)), arguments: SmallDisk.Kind.allCases)
        func fill(kind: SmallDisk.Kind) async throws {
            let folder = try TemporaryFolder()
            let disk = try await SmallDisk(kind, megabytes: 64, in: folder)
            var platform = try await Platform.start(in: folder, launcher: disk.launcher, Self.settings)
            let first = try await platform.apus(["send", "--topic", Self.topic], input: .file("/etc/hostname"))
            #expect(first.status == 0, "\(first.errorText)")
            let producer =
                OfficialClient.isInstalled ? try await OfficialClient.producer(platform, ["--retry", "90"]) : nil
            let consumer =
                OfficialClient.isInstalled
                ? try await OfficialClient.push(platform, topic: "Official", group: "official") : nil
            let oracle = Oracle(broker: platform.broker, topic: Self.topic)
            try await eventually("traffic", within: Self.patience) { oracle.acknowledged.count > 300 }

            func official(_ numbers: Range<Int>) {
                producer?.write(
                    OfficialClient.text(
                        numbers.map { .init(n: $0, topic: "Official", body: "\($0)", keys: "key-\($0)") }))
            }
            official(0..<20)
            try await Self.meetTheEnd(platform, disk, oracle)
            official(20..<40)
            #expect(disk.available < 65_536, "\(disk.available) bytes are free")

            // Space comes back: so does service, without help.
            var before = oracle.acknowledged.count
            try disk.free()
            let freed = ContinuousClock.now
            try await eventually("sends are taken again", within: Self.patience) {
                oracle.acknowledged.count > before + 50
            }
            print("T12 \(kind): taken again \(freed.duration(to: .now)) after space was freed")
            try await Self.checkStatus(platform, disk, isFull: false)
            try await Self.checkStored(platform, oracle)

            // Killed on the full disk: it starts, serves reads, refuses in words.
            try await Self.meetTheEnd(platform, disk, oracle)
            for _ in 1...3 {
                let old = try #require(platform.pid(of: "broker-store"))
                kill(old, SIGKILL)
                _ = try await platform.newPid(of: "broker-store", after: old)
                try disk.fill()
            }
            let refusals = oracle.refusals.count
            try await eventually("refused again", within: Self.patience) { oracle.refusals.count > refusals + 5 }
            Self.checkRemark(oracle, since: refusals)
            try await Self.checkStored(platform, oracle)
            before = oracle.acknowledged.count
            try disk.free()
            try await eventually("sends are taken again", within: Self.patience) {
                oracle.acknowledged.count > before + 50
            }
            official(40..<60)
            if let producer, let consumer {
                producer.closeInput()
                try await producer.finish(within: .seconds(60))
                let answers = OfficialClient.answers(of: producer).filter { $0.ok }
                #expect(Set(answers.map(\.n)) == Set(0..<60), "the official client went on through it all")
                _ = try await consumer.receive(60)
                #expect(Set(consumer.deliveries.map(\.keys)).count == 60)
                try await consumer.stop()
            }
            await oracle.stop()
            try await Self.checkStored(platform, oracle)

            // Stopped and started anew on a full disk, then judged file by file.
            try await platform.stop()
            try disk.fill()
            platform = try await Platform.start(in: folder, launcher: disk.launcher, Self.settings)
            try await Self.checkStored(platform, oracle)
            try disk.free()
            try await platform.stop()
            try Self.judge(disk, platform, oracle)
            try await disk.unmount()
        }

        /// What lies on the disk at the end is a store RocketMQ accepts, with every acknowledged message in it.
        private static func judge(_ disk: SmallDisk, _ platform: Platform, _ oracle: Oracle) throws {
            let root = disk.outside(platform.data)
            let store = try #require(
                FileManager.default.enumerator(atPath: root)?.compactMap { $0 as? String }.first {
                    $0.hasSuffix("/commitlog") || $0 == "commitlog"
                })
            let judge = try StoreJudge(
                root + "/" + store.dropLast("commitlog".count),
                rules: StoreJudge.Rules(log: 1_048_576, queue: 20_000, slots: 1000, entries: 100_000))
            #expect(judge.judge() == [], "\(platform.log.suffix(3000))")
            let bodies = Set(judge.records.map(\.text))
            #expect(oracle.acknowledged.isSubset(of: bodies))
        }
    }
}
