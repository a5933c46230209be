import Foundation
import RemotingProtocol
import Testing

@testable import RouteRegistry

@Suite("the name server's table of requests")
struct NameServerRequestsTests {
    private static let readme = URL(fileURLWithPath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        .appendingPathComponent("Sources/RouteRegistry/README.md")

    @Test("the README's table of request codes is the one the name server works with")
    func readme() throws {
        let text = try String(contentsOf: Self.readme, encoding: .utf8)
        #expect(
            text.contains(NameServerRequests.markdown),
            "replace the table in Sources/RouteRegistry/README.md by this one:\n\(NameServerRequests.markdown)")
    }

    @Test("each code has one row, and registrations alone may be large")
    func rows() {
        #expect(NameServerRequests.byCode.count == NameServerRequests.rows.count)
        for row in NameServerRequests.rows {
            #expect(NameServerRequests.byCode[row.code.rawValue] === row)
            #expect((row.bodyBytesMax == .max) == (row.code == .registerBroker), "\(row.name)")
        }
    }
}
