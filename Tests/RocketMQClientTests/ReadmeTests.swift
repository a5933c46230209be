import Foundation
import Testing

@Suite("RocketMQClient: its page")
struct ReadmeTests {
    private static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()

    private static func text(_ path: String) throws -> String {
        try String(contentsOf: root.appendingPathComponent(path), encoding: .utf8)
    }

    @Test("the first example on the page is the program that T28 runs; the others are built with it")
    func example() throws {
        let page = try Self.text("Sources/RocketMQClient/README.md")
        let files = try ["main", "Billing", "Members"].map {
            try Self.text("Tests/Support/SwiftClientExample/\($0).swift")
        }
        let blocks = page.components(separatedBy: "```swift\n").dropFirst().compactMap {
            $0.components(separatedBy: "```\n").first
        }
        #expect(Array(blocks.prefix(3)) == files)
    }
}
