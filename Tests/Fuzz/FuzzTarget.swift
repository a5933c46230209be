// What libFuzzer calls for each input, compiled by `Tests/Fuzz/run` together with the protocol's sources: one target
// for frames and all that is decoded out of them, one for JSON, and a canary with a planted bug that must be found.

import FastJSON

#if FUZZ_FRAME
    private nonisolated(unsafe) let scratch = HeaderScratch()
#endif

/// One input; libFuzzer keeps those that reach new code.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzOneInput(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let bytes = UnsafeRawBufferPointer(start: start, count: count)
    #if FUZZ_FRAME
        guard count >= 8 else { return 0 }
        // The length word is put right, so that inputs get past it.
        var input = [UInt8](bytes)
        withUnsafeBytes(of: UInt32(count - 4).bigEndian) { input.replaceSubrange(0..<4, with: $0) }
        input.withUnsafeBytes { raw in
            guard let frame = try? RemotingFrame.parse(raw, scratch: scratch) else { return }
            _ = try? SendMessageRequestHeader(frame)
            _ = try? PullMessageRequestHeader(frame)
            _ = frame.extFields.dictionary()
            _ = frame.remark
            _ = try? HeartbeatData(body: frame.body)
            _ = try? RegisterBrokerBody(body: frame.body, compressed: frame.opaque & 1 == 0)
            _ = try? TopicRouteData(body: frame.body)
            _ = try? ClusterInfo(body: frame.body)
            _ = try? LockBatchRequestBody(body: frame.body)
            _ = try? ConsumerOffsetSerializeWrapper(body: frame.body)
            _ = try? SubscriptionGroupWrapper(body: frame.body)
            _ = try? MessageExt.decodeAll(frame.body)
            _ = MessageProperties.decode(frame.body)
        }
    #elseif FUZZ_JSON
        guard let value = try? JSONValue(parsing: bytes) else { return 0 }
        for options: JSONWriter.Options in [[], [.pretty], [.standard, .sorted]] {
            guard let back = try? JSONValue(parsing: value.bytes(options)) else {
                preconditionFailure("what was written is not read")
            }
            precondition(options.contains(.standard) || back == value, "what was written reads differently")
        }
    #else
        precondition(
            !(count >= 3 && bytes[0] == 0x7b && bytes[1] == 0x22 && bytes[2] == 0x21), "the canary's planted bug")
    #endif
    return 0
}
