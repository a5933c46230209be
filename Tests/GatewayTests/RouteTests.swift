import FastJSON
import Testing

@testable import Gateway

@Suite struct RouteTests {
    private func refusal(_ method: String, _ target: String) -> Problem? {
        do throws(Problem) {
            _ = try RouteTable.find(method, target)
            return nil
        } catch {
            return error
        }
    }

    @Test func aPathLeadsToItsRouteWithDecodedNames() throws {
        #expect(try RouteTable.find("GET", "/").route.operation == .start)
        #expect(try RouteTable.find("GET", "/health").route.operation == .health)
        let sending = try RouteTable.find("POST", "/v1/topics/Orders/messages")
        #expect(sending.route.operation == .sendMessages && sending.parameters == ["topic": "Orders"])
        let retry = try RouteTable.find("POST", "/v1/topics/%25RETRY%25g/groups/%E7%BB%84/receive")
        #expect(retry.parameters == ["topic": "%RETRY%g", "group": "组"])
        let stream = try RouteTable.find(
            "GET", "/v1/topics/T/groups/g/events?filter=a+%7C%7C+b&invisibleMilliseconds=2000")
        #expect(stream.query == ["filter": "a || b", "invisibleMilliseconds": 2000])
    }

    @Test(arguments: [
        ("GET", "/nothing", 404, "unknown-route"), ("GET", "/v1/topics", 404, "unknown-route"),
        ("GET", "//health", 404, "unknown-route"), ("GET", "/health/", 404, "unknown-route"),
        ("GET", "health", 404, "unknown-route"), ("GET", "*", 404, "unknown-route"), ("GET", "", 404, "unknown-route"),
        ("POST", "/v1/topics//messages", 404, "unknown-route"),
        ("GET", "/v1/topics/../../etc/passwd", 404, "unknown-route"),
        ("DELETE", "/health", 405, "method-not-allowed"), ("GET", "/v1/topics/T/messages", 405, "method-not-allowed"),
        ("POST", "/v1/topics/%2e%2e/messages", 400, "invalid-request"),
        ("POST", "/v1/topics/a%2Fb/messages", 400, "invalid-request"),
        ("POST", "/v1/topics/a%0Ab/messages", 400, "invalid-request"),
        ("POST", "/v1/topics/%FF/messages", 400, "invalid-request"),
        ("POST", "/v1/topics/%4/messages", 400, "invalid-request"),
        ("GET", "/v1/topics/T/groups/g/events?max=1", 400, "invalid-request"),
        ("GET", "/v1/topics/T/groups/g/events?filterType=", 400, "invalid-request"),
        ("GET", "/v1/topics/T/groups/g/events?invisibleMilliseconds=abc", 400, "invalid-request"),
        ("GET", "/v1/topics/T/groups/g/events?invisibleMilliseconds=99999999999999999999", 400, "invalid-request"),
    ])
    func whatIsNotServedIsSaid(method: String, target: String, status: Int, code: String) throws {
        let problem = try #require(refusal(method, target))
        #expect(problem.status == status && problem.code == code && !problem.remedy.isEmpty)
    }

    @Test func aRefusalNamesWhatThereIs() throws {
        let allowed = try #require(refusal("DELETE", "/v1/topics/T/messages"))
        #expect(allowed.headers.contains { $0 == ("allow", "POST") })
        let body = try JSONValue(parsing: (try #require(refusal("GET", "/x"))).answer.body)
        #expect(body["routes"]?.array?.count == RouteTable.routes.count)
        #expect(body["status"] == 404 && body["code"] == "unknown-route")
    }

    @Test func operationsAndPathsOccurOnce() {
        let routes = RouteTable.routes
        #expect(Set(routes.map(\.operation)) == Set(Operation.allCases) && routes.count == Operation.allCases.count)
        #expect(Set(routes.map { "\($0.method) \($0.path)" }).count == routes.count)
        // A page of another site can send GET with nothing but an address.
        let isGuarded = routes.filter { $0.method == "POST" }.allSatisfy { $0.changesState }
        #expect(isGuarded)
    }

    // MARK: - OpenAPI

    @Test func theDocumentHasTheRoutesAndNoOthers() throws {
        let document = try JSONValue(parsing: OpenAPI.bytes)
        #expect(document["openapi"] == "3.1.0")
        var described: Set<String> = []
        for path in document["paths"]?.object?.members ?? [] {
            for method in path.value.object?.members ?? [] {
                described.insert("\(method.key.uppercased()) \(path.key)")
                let route = try #require(
                    RouteTable.routes.first { $0.path == path.key && $0.method.lowercased() == method.key })
                #expect(method.value["operationId"]?.string == route.operation.rawValue)
                let parameters = method.value["parameters"]?.array?.compactMap { $0["name"]?.string } ?? []
                #expect(parameters == route.parameters + route.query.map(\.name))
                #expect((method.value["requestBody"] == nil) == (route.body == nil))
            }
        }
        #expect(described == Set(RouteTable.routes.map { "\($0.method) \($0.path)" }))
    }

    @Test func allReferencesOfTheDocumentLeadSomewhere() throws {
        let document = try JSONValue(parsing: OpenAPI.bytes)
        let schemas = Set(document["components"]?["schemas"]?.object?.members.map(\.key) ?? [])
        var references: Set<String> = []
        func walk(_ value: JSONValue) {
            if let reference = value["$ref"]?.string { references.insert(reference) }
            for member in value.object?.members ?? [] { walk(member.value) }
            for element in value.array ?? [] { walk(element) }
        }
        walk(document)
        #expect(references.count > 8)
        #expect(references == Set(schemas.map { "#/components/schemas/\($0)" }).intersection(references))
        #expect(schemas.isSuperset(of: ["SendRequest", "Delivery", "Problem"]))
    }
}
