import RemotingProtocol
import Testing

@testable import Replication

@Suite("where a slave finds its master")
struct MetadataSyncTests {
    private func answer(_ address: String, padding: Int = 0) -> RemotingCommand {
        let table = #"{"brokerAddrTable":{"b":{"brokerAddrs":{0:"\#(address)"}}},"x":""#
        let text = table + String(repeating: "x", count: padding) + "\"}"
        return RemotingCommand(code: ResponseCode.success.rawValue, body: Array(text.utf8))
    }

    @Test("a name server's answer is read up to 1 MiB, a host up to 255 bytes")
    func bounds() {
        #expect(MetadataSync.master(of: "b", in: answer("10.0.0.1:10911")) == HostPort(host: "10.0.0.1", port: 10_911))
        #expect(MetadataSync.master(of: "b", in: answer("10.0.0.1:10911", padding: 1_000_000)) != nil)
        #expect(MetadataSync.master(of: "b", in: answer("10.0.0.1:10911", padding: 1 << 20)) == nil)
        #expect(HostPort(String(repeating: "h", count: 255) + ":1") != nil)
        #expect(HostPort(String(repeating: "h", count: 256) + ":1") == nil)
    }
}
