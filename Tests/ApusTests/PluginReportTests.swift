import FastJSON
import Testing

@testable import apus

/// What the supervisor passes on of workers' reports. A worker for plugins may have been taken over by one.
@Suite("what is reported of plugins") struct PluginReportTests {
    private static func answer(_ reports: [String]) throws -> JSONValue {
        let workers = reports.enumerated().map { index, report in
            JSONValue.fields([
                ("index", .integer(index)), ("state", .string("ready")), ("report", .string(report)),
            ])
        }
        return .fields([("folder", .string("/p")), ("workers", .array(workers)), ("brokers", .array([]))])
    }

    private static let good = """
        {"role":"own","plugins":[{"path":"/p/a.so","name":"a","type":"A","mine":true}],
        "expressions":[{"type":"A","expression":"x","plugins":["a"]}],"expressionCount":1}
        """

    @Test("a report says something of its own worker; one that cannot be read says nothing")
    func reports() throws {
        let hostile = [
            "", "null", "[]", "\"x\"", "{", "{}}",
            "]}],\"workers\":[{\"index\":9,\"report\":{\"plugins\":[]}}],\"x\":[{\"y\":[{",
            String(repeating: "[", count: 10_000),
        ]
        let answer = try Self.answer(hostile + [Self.good])
        // As it goes over the socket.
        let report = PluginReport(try JSONValue(parsing: answer.text()))
        #expect(report.rows.map(\.file) == ["a.so"])
        #expect(report.expressions.map(\.expression) == ["x"])
        #expect(report.absent.isEmpty)
    }
}
