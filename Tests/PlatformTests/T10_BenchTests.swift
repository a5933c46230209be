import FastJSON
import Foundation
import Testing

extension PlatformTests {
    /// The load generator against a live platform: what it counts is what the broker has.
    @Suite("T10 load generator", .serialized)
    struct T10_Bench {
        @Test(
            "every way of loading: all sent is acknowledged, all acknowledged is stored, nothing fails",
            .timeLimit(.minutes(1)),
            arguments: [
                ["--connections", "64"],
                ["--connections", "4", "--in-flight", "64", "--size", "1,100,5000"],
                ["--connections", "4", "--in-flight", "8", "--batch", "32"],
                ["--connections", "8", "--in-flight", "4", "--batch", "7", "--header", "binary", "--tag", "t"],
                ["--mode", "both", "--rate", "2000", "--connections", "8", "--in-flight", "8"],
            ])
        func loads(options: [String]) async throws {
            let platform = try await Platform.start()
            let result = try await platform.apus(
                ["bench", "--topic", "Load", "--seconds", "1.5", "--warm-up", "0.5", "--json"] + options)
            #expect(result.status == 0, "\(result.lines) \(result.errorText)")
            let report = try JSONValue(parsing: result.lines.joined())
            let acknowledged = report["acknowledged"]?.integer ?? -1
            #expect(acknowledged > 0 && report["sent"]?.integer == acknowledged)
            #expect(report["unanswered"]?.integer == 0)
            let stored = try await platform.queueSizes(topic: "Load", queues: 8).reduce(0, +)
            #expect(stored == acknowledged, "the broker has \(stored) of \(acknowledged) messages")
            if options.contains("both") { #expect(report["received"]?.integer == acknowledged) }

            let reading = try await platform.apus(["bench", "--topic", "Load", "--mode", "consume", "--json"])
            #expect(reading.status == 0, "\(reading.lines) \(reading.errorText)")
            #expect(try JSONValue(parsing: reading.lines.joined())["received"]?.integer == acknowledged)
            try await platform.stop()
        }
    }
}
