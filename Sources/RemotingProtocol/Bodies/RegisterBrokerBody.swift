package import FastJSON

/// What a broker announces to a name server (103), in one of two forms.
///
/// Plain: JSON. Compressed (`compressed=true`): a zlib stream of
///
///     | length 4 | DataVersion as JSON | number of topics 4 | (length 4 | TopicConfig.registrationText)* |
///     | length 4 | filter servers as a JSON array | from 5.x: number of mappings 4 … (skipped) |
package struct RegisterBrokerBody: JSONBody {
    /// The broker's topics and the version of their table.
    package var topicConfigSerializeWrapper: TopicConfigSerializeWrapper
    /// Addresses of RocketMQ's filter servers; Apus has none.
    package var filterServerList: [String]

    /// A body larger than this when inflated is refused (about half a million topics).
    package static let inflatedBytesMax = 64 << 20

    package init(
        topicConfigSerializeWrapper: TopicConfigSerializeWrapper = TopicConfigSerializeWrapper(),
        filterServerList: [String] = []
    ) {
        self.topicConfigSerializeWrapper = topicConfigSerializeWrapper
        self.filterServerList = filterServerList
    }

    package init(json: JSONValue) throws(RemotingDecodeError) {
        try json.requireObject("the registration")
        topicConfigSerializeWrapper = try TopicConfigSerializeWrapper(
            json: json["topicConfigSerializeWrapper"] ?? .null)
        filterServerList = try json.strings("filterServerList")
    }

    package var json: JSONValue {
        .fields([
            ("filterServerList", .strings(filterServerList)),
            ("topicConfigSerializeWrapper", topicConfigSerializeWrapper.json),
        ])
    }

    /// - Throws: `badBody`: the bytes do not inflate, inflate to more than `inflatedBytesMax`, or hold no registration.
    package init(body: UnsafeRawBufferPointer, compressed: Bool) throws(RemotingDecodeError) {
        guard compressed else {
            self = try Self(body: body)
            return
        }
        let bytes: [UInt8]
        do {
            bytes = try Zlib.inflate(body, bytesMax: Self.inflatedBytesMax)
        } catch {
            throw .badBody(error.description)
        }
        let result = bytes.withUnsafeBytes { raw in
            Result { () throws(RemotingDecodeError) in try Self(inflated: raw) }
        }
        self = try result.get()
    }

    private init(inflated bytes: UnsafeRawBufferPointer) throws(RemotingDecodeError) {
        var offset = 0
        func integer() throws(RemotingDecodeError) -> Int {
            guard bytes.count - offset >= 4 else { throw .badBody("the registration ends early") }
            defer { offset += 4 }
            return Int(bytes.bigEndian(Int32.self, at: offset))
        }
        func chunk() throws(RemotingDecodeError) -> UnsafeRawBufferPointer {
            let count = try integer()
            guard count >= 0, count <= bytes.count - offset else {
                throw .badBody("the registration has a part of \(count) bytes")
            }
            defer { offset += count }
            return UnsafeRawBufferPointer(rebasing: bytes[offset..<(offset + count)])
        }
        let dataVersion = try DataVersion(body: try chunk())
        let topicCount = try integer()
        guard topicCount >= 0, topicCount <= bytes.count else {
            throw .badBody("the registration names \(topicCount) topics")
        }
        var topics: [TopicConfig] = []
        for _ in 0..<topicCount {
            let text = String(decoding: try chunk(), as: UTF8.self)
            guard let topic = TopicConfig(registrationText: text) else {
                throw .badBody("\"\(text)\" is not a topic")
            }
            topics.append(topic)
        }
        let filterServers: JSONValue
        do {
            filterServers = try JSONValue(parsing: try chunk())
        } catch let error as JSONError {
            throw .badBody(error.description)
        } catch let error as RemotingDecodeError {
            throw error
        } catch {
            throw .badBody("\(error)")
        }
        self.init(
            topicConfigSerializeWrapper: TopicConfigSerializeWrapper(
                topicConfigTable: topics, dataVersion: dataVersion),
            filterServerList: try filterServers.elements("filterServerList").compactMap { $0.string })
    }

    /// The compressed form. It carries neither `order` nor `topicSysFlag` of a topic: that is RocketMQ's form.
    package func compressed() -> [UInt8] {
        var bytes: [UInt8] = []
        func append(_ value: Int) {
            withUnsafeBytes(of: Int32(truncatingIfNeeded: value).bigEndian) { bytes.append(contentsOf: $0) }
        }
        func append(chunk: [UInt8]) {
            append(chunk.count)
            bytes.append(contentsOf: chunk)
        }
        append(chunk: topicConfigSerializeWrapper.dataVersion.encoded())
        append(topicConfigSerializeWrapper.topicConfigTable.count)
        for topic in topicConfigSerializeWrapper.topicConfigTable {
            append(chunk: Array(topic.registrationText.utf8))
        }
        append(chunk: JSONValue.strings(filterServerList).bytes())
        return Zlib.deflate(bytes)
    }
}
