import FastJSON

/// The OpenAPI document of the route table.
enum OpenAPI {
    /// As it is served.
    static let bytes: [UInt8] = document.bytes()

    static var document: JSONValue {
        var paths = JSONObject()
        for route in RouteTable.routes {
            var methods = paths[route.path]?.object ?? JSONObject()
            methods.append(route.method.lowercased(), operation(route))
            paths[route.path] = .object(methods)
        }
        return .fields([
            ("openapi", "3.1.0"),
            (
                "info",
                .fields([
                    ("title", "Apus gateway"), ("version", "1"),
                    ("description", "Topics and groups of RocketMQ and Apus over HTTP"),
                ])
            ),
            ("paths", .object(paths)),
            (
                "components",
                .fields([
                    ("schemas", schemas()),
                    (
                        "securitySchemes",
                        .fields([
                            (
                                "accessToken",
                                .fields([
                                    ("type", "http"), ("scheme", "bearer"),
                                    ("description", "needed where the gateway has access tokens"),
                                ])
                            )
                        ])
                    ),
                ])
            ),
            ("security", .array([.fields([]), .fields([("accessToken", .array([]))])])),
        ])
    }

    private static func operation(_ route: Route) -> JSONValue {
        let parameters =
            route.parameters.map { name in
                parameter(Field(name, .text(1...255), isRequired: true, "name of the \(name)"), "path")
            } + route.query.map { parameter($0, "query") }
        return .fields([
            ("operationId", .string(route.operation.rawValue)), ("summary", .string(route.summary)),
            ("parameters", parameters.isEmpty ? nil : .array(parameters)),
            (
                "requestBody",
                route.body.map {
                    .fields([
                        ("required", .bool(route.needsBody)), ("content", content("application/json", reference($0))),
                    ])
                }
            ),
            (
                "responses",
                .fields([
                    (
                        "200",
                        .fields([
                            ("description", "as the summary says"),
                            (
                                "content",
                                content(
                                    route.answerType,
                                    route.answer.map(reference)
                                        ?? .fields([
                                            ("type", route.answerType == "application/json" ? "object" : "string")
                                        ]))
                            ),
                        ])
                    ),
                    (
                        "default",
                        .fields([
                            ("description", "why not"),
                            ("content", content("application/problem+json", reference(Shapes.problem))),
                        ])
                    ),
                ])
            ),
        ])
    }

    private static func parameter(_ field: Field, _ place: String) -> JSONValue {
        .fields([
            ("name", .string(field.name)), ("in", .string(place)), ("required", .bool(field.isRequired)),
            ("description", .string(field.meaning)), ("schema", schema(field.kind)),
        ])
    }

    private static func content(_ type: String, _ schema: JSONValue) -> JSONValue {
        .fields([(type, .fields([("schema", schema)]))])
    }

    private static func reference(_ shape: Shape) -> JSONValue {
        .fields([("$ref", .string("#/components/schemas/\(shape.name)"))])
    }

    // MARK: - Schemas

    /// Of all shapes that routes name, and of those in them.
    private static func schemas() -> JSONValue {
        var shapes: [Shape] = []
        func add(_ shape: Shape) {
            guard !shapes.contains(where: { $0.name == shape.name }) else { return }
            shapes.append(shape)
            for field in shape.fields {
                switch field.kind {
                case .objects(_, let inner), .object(let inner): add(inner)
                default: break
                }
            }
        }
        for route in RouteTable.routes {
            for shape in [route.body, route.answer].compactMap({ $0 }) { add(shape) }
        }
        // The data of an event.
        add(Shapes.delivery)
        add(Shapes.problem)
        return .fields(shapes.map { ($0.name, schema($0)) })
    }

    private static func schema(_ shape: Shape) -> JSONValue {
        let required = shape.fields.filter(\.isRequired).map(\.name)
        let properties = shape.fields.map { field -> (String, JSONValue?) in
            var value = schema(field.kind).object ?? JSONObject()
            // Beside a reference a description is allowed from OpenAPI 3.1 on.
            value.append("description", .string(field.meaning))
            return (field.name, .object(value))
        }
        return .fields([
            ("type", "object"), ("properties", .fields(properties)),
            ("required", required.isEmpty ? nil : .strings(required)),
        ])
    }

    private static func schema(_ kind: Field.Kind) -> JSONValue {
        func array(_ items: JSONValue, _ count: ClosedRange<Int>) -> JSONValue {
            .fields([
                ("type", "array"), ("items", items), ("minItems", .integer(count.lowerBound)),
                ("maxItems", .integer(count.upperBound)),
            ])
        }
        return switch kind {
        // Bounds are bytes, and a schema's are characters: only the lower one says the same.
        case .text(let bytes): .fields([("type", "string"), ("minLength", .integer(min(bytes.lowerBound, 1)))])
        case .word(let words): .fields([("type", "string"), ("enum", .strings(words))])
        case .integer(let bounds):
            .fields([
                ("type", "integer"), ("format", "int64"), ("minimum", .integer(bounds.lowerBound)),
                ("maximum", .integer(bounds.upperBound)),
            ])
        case .texts(let count, let bytes): array(schema(.text(bytes)), count)
        case .map: .fields([("type", "object"), ("additionalProperties", .fields([("type", "string")]))])
        case .objects(let count, let shape): array(reference(shape), count)
        case .object(let shape): reference(shape)
        }
    }
}
