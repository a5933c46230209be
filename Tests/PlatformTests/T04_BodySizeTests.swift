import Foundation
import Testing

extension PlatformTests {
    /// Bodies from one byte to the limit.
    @Suite("T04 body sizes", .serialized, needsOfficialClient)
    struct T04_BodySizes {
        static let sizes = [1, 2, 100, 1023, 4095, 4096, 4097, 65_535, 131_072, 1 << 20, (4 << 20) - 1, 4 << 20]

        @Test(
            "1 B to 4 MB, plain and compressed: the same bytes come out", .timeLimit(.minutes(2)),
            arguments: [true, false])
        func bodies(compressed: Bool) async throws {
            let platform = try await Platform.start()
            // Compression makes incompressible bodies a little larger: the largest go plain only.
            let sizes = compressed ? Self.sizes.filter { $0 <= 1 << 20 } : Self.sizes
            let sent = sizes.enumerated().map { index, size in
                OfficialClient.Outgoing(n: index, topic: "Sizes", size: size, keys: "size-\(size)")
            }
            let answers = try await OfficialClient.produce(
                platform, sent, mode: "sync", compressed ? [] : ["--no-compression"])
            #expect(answers.count == sizes.count)
            #expect(answers.allSatisfy { $0.ok }, "\(answers.first { !$0.ok }?.error ?? "")")
            let consumer = try await OfficialClient.push(platform, topic: "Sizes", group: "sizes")
            let deliveries = try await consumer.receive(sizes.count)
            try await consumer.stop()
            for (answer, size) in zip(answers, sizes) {
                let delivery = deliveries.first { $0.keys == "size-\(size)" }
                #expect(delivery?.size == size && delivery?.sha256 == answer.sha256, "\(size) bytes")
            }
            try await platform.stop()
        }

        @Test("more than 4 MB is refused in words, and the connection goes on", .timeLimit(.minutes(1)))
        func tooLarge() async throws {
            let platform = try await Platform.start()
            let answers = try await OfficialClient.produce(
                platform,
                [
                    OfficialClient.Outgoing(n: 0, topic: "Limit", body: "before"),
                    OfficialClient.Outgoing(n: 1, topic: "Limit", size: (4 << 20) + 1),
                    OfficialClient.Outgoing(n: 2, topic: "Limit", body: "after"),
                ], mode: "sync", ["--no-compression"])
            #expect(answers.map(\.ok) == [true, false, true], "\(answers)")

            // What the broker itself says, by our own tool.
            let file = platform.folder.file("large")
            try String(repeating: "x", count: (4 << 20) + 1).write(toFile: file, atomically: false, encoding: .utf8)
            let sent = try await platform.apus(["send", "--topic", "Limit", file])
            #expect(sent.status == 1)
            #expect(sent.errorText.contains("code 13"), "\(sent.errorText)")
            #expect(
                sent.errorText.lowercased().contains("size") || sent.errorText.contains("4194304"), "\(sent.errorText)")
            try await platform.stop()
        }
    }
}
