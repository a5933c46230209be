"""All request codes: whom they go to, how often, their body, their header fields with types; `?`: may be left out.

`!` behind the code: destroys what it names by right, so it never names what the verified traffic uses."""

import bodies

TABLE = """
10      b 10 message producerGroup:pgroup topic:topic defaultTopic:default defaultTopicQueueNums:queues queueId:queue sysFlag:sysflag bornTimestamp:time flag:int properties:props reconsumeTimes:count unitMode:bool maxReconsumeTimes:count? batch:bool?
310     b 30 message a:pgroup b:topic c:default d:queues e:queue f:sysflag g:time h:int i:props j:count k:bool l:count?
320     b 5 messages a:pgroup b:topic c:default d:queues e:queue f:sysflag g:time h:int i:props j:count k:bool m:bool l:count?
11      b 14 none consumerGroup:group topic:topic queueId:queue queueOffset:begin maxMsgNums:some sysFlag:pullflag commitOffset:offset suspendTimeoutMillis:suspend subscription:expression? subVersion:zero expressionType:exptype? maxMsgBytes:int?
361     b 3 none consumerGroup:group topic:topic queueId:queue queueOffset:begin maxMsgNums:some sysFlag:pullflag commitOffset:offset suspendTimeoutMillis:suspend subscription:expression? subVersion:zero expressionType:exptype?
12      b 4 none topic:topic key:key maxNum:some beginTimestamp:zero endTimestamp:time
13      b 1 none topic:topic queueId:queue
14      b 4 none consumerGroup:group topic:topic queueId:queue setZeroIfNotFound:bool?
15!     b 14 none consumerGroup:group topic:topic queueId:queue commitOffset:offset
17!     b 4 none topic:topic defaultTopic:default readQueueNums:queues writeQueueNums:queues perm:perm topicFilterType:filter topicSysFlag:count? order:bool attributes:attributes?
18!     b 1 topic_list
21      b 2 none
22      b 1 none
23      b 1 none
25!     b 2 broker_settings
26      b 1 none
27      b 1 none
28      b 2 none
29      b 3 none topic:topic queueId:queue timestamp:time boundaryType:text?
30      b 3 none topic:topic queueId:queue committed:bool?
31      b 2 none topic:topic queueId:queue
32      b 2 none topic:topic queueId:queue
33      b 5 none topic:topic? offset:physical
34      b 10 heartbeat
35!     b 4 none clientID:client producerGroup:pgroup? consumerGroup:group?
36!     b 20 none offset:physical group:group delayLevel:level originMsgId:msgid? originTopic:topic? unitMode:bool? maxReconsumeTimes:count?
37      b 6 none topic:topic? producerGroup:pgroup tranStateTableOffset:half commitLogOffset:physical commitOrRollback:outcome fromTransactionCheck:bool? msgId:msgid transactionId:text?
38      b 2 none consumerGroup:group
39      b 1 none topic:topic? tranStateTableOffset:half commitLogOffset:physical msgId:msgid
40      b 1 none consumerGroup:group
41      b 4 lock
42      b 3 lock
43      b 1 none
45      b 1 none
46      b 2 client_check
47      b 1 none
50      b 1 none accessKey:text secretKey:text
51      b 1 none accessKey:text
52      b 1 none
53      b 1 none globalWhiteAddrs:address aclFileFullPath:text
60      b 1 none
61      b 1 none
100     n 6 none namespace:namespace key:key value:value
101     n 2 none namespace:namespace key:key
102     n 2 none namespace:namespace key:key
103!    n 12 registration brokerName:broker brokerAddr:address clusterName:cluster haServerAddr:address brokerId:count heartbeatTimeoutMillis:timeout? enableActingMaster:bool? compressed:bool? bodyCrc32:zero?
104!    n 3 none brokerName:broker brokerAddr:address clusterName:cluster brokerId:count
105     n 8 none topic:topic acceptStandardJsonOnly:bool?
106     n 2 none
200!    b 6 group_config
201     b 1 none
202     b 3 none topic:topic
203     b 2 none consumerGroup:group
204     b 1 none producerGroup:pgroup
205!    n 2 none brokerName:broker
206     n 1 none
207!    b 3 none groupName:group cleanOffset:bool? removeOffset:bool?
208     b 12 none consumerGroup:group topic:topic?
209     b 1 none
210     b 1 none
211     b 1 none
212     b 1 none
213     b 1 none
214     b 1 none
215!    b 3 none topic:topic
216!    n 2 none topic:topic clusterName:cluster?
217!    n 2 route topic:topic
219     n 1 none namespace:namespace
220     b 1 none topic:topic group:group timestamp:time isForce:bool
221     b 1 none topic:topic group:group
222!    b 4 none topic:topic group:group timestamp:time isForce:bool queueId:queue? offset:offset?
223     b 1 none topic:topic group:group clientAddr:client?
224     n 1 none cluster:cluster
225!    b 1 group_list
300     b 1 none topic:topic
301     b 1 none
302     b 1 none
303     b 2 none topic:topic group:group
304     n 1 none
305     b 1 none
306     b 1 none
307     b 2 none consumerGroup:group clientId:client jstackEnable:bool?
308     b 1 none topic:topic compareGroup:group filterGroups:group?
309     b 2 none consumerGroup:group clientId:client msgId:msgid brokerName:broker topic:topic?
311     n 1 none
312     n 1 none
313     n 1 none
314!    b 2 none srcGroup:group destGroup:group topic:topic? offline:bool?
315     b 1 none statsName:stats statsKey:topic
316     b 1 none
317     b 1 none isOrder:bool
318!    n 2 nameserver_settings
319     n 1 none
321     b 2 none topic:topic queueId:queue index:begin count:some consumerGroup:group?
322     n 2 version brokerName:broker brokerAddr:address clusterName:cluster brokerId:count
323     b 1 none topic:topic msgId:msgid
324     b 1 message producerGroup:pgroup topic:topic defaultTopic:default defaultTopicQueueNums:queues queueId:queue sysFlag:sysflag bornTimestamp:time flag:int properties:props reconsumeTimes:count
325     b 2 message a:pgroup b:topic c:default d:queues e:queue f:sysflag g:time h:int i:props j:count
326     b 1 message producerGroup:pgroup topic:topic
327!    n 1 none brokerName:broker
328     b 1 none
329     b 1 none
343     b 1 none group:group
345     b 1 none group:group topic:topic?
351     b 1 none topic:topic
352     b 1 none group:group
353     b 1 none group:group topic:topic readable:bool
354     b 1 none topic:topic checkStoreTime:time
355     b 1 none typeName:text configType:text
370     b 2 none producerGroup:pgroup? topic:topic recallHandle:text
400     b 1 assignment
401     b 1 mode_request
402     b 1 none
513!    b 1 topic_config topic:topic defaultTopic:default readQueueNums:queues writeQueueNums:queues perm:perm topicFilterType:filter order:bool force:bool?
901     n 1 none clusterName:cluster brokerName:broker
902     b 1 none configPath:text
903     b 1 none brokerName:broker brokerClusterName:cluster brokerId:count
904     n 2 none clusterName:cluster brokerAddr:address brokerName:broker brokerId:count? epoch:int? maxOffset:offset? heartbeatTimeoutMills:timeout?
905     b 1 none minBrokerId:count brokerName:broker minBrokerAddr:address
906     b 1 none masterHaAddress:address? masterFlushOffset:physical?
907     b 1 none
908     b 1 none masterFlushOffset:physical
1001    n 1 none brokerName:broker
1005    n 1 none
1007    b 1 none
2001    b 1 broker_settings
2002    b 1 none
2003    b 1 none
2004    b 1 none READ_AHEAD_MODE:count
3001    b 1 none username:text
3005    b 1 none
3010    b 1 none
200050  b 4 none consumerGroup:group topic:topic queueId:queue maxMsgNums:some invisibleTime:suspend pollTime:suspend bornTime:born initMode:first expType:exptype? exp:expression? order:bool? attemptId:attempt?
200051  b 4 none consumerGroup:group topic:topic queueId:queue offset:begin extraInfo:handle
200052  b 1 none consumerGroup:group topic:topic queueId:queue maxMsgNums:some
200053  b 3 none consumerGroup:group topic:topic queueId:queue offset:begin extraInfo:handle invisibleTime:suspend
31002!  b 3 none topic:topic queueId:queue? queueOffset:offset? offset:physical? msgId:msgid? operation:operation by:text tags:text? keys:text? properties:props? deliverAt:time? retries:count? version:count? hasBody:bool?
31001   b 2 none topic:topic? msgId:msgid? queueId:queue? queueOffset:offset? offset:physical? group:group?
200054  b 1 none consumerGroup:group topic:topic queueId:queue pollTime:suspend bornTime:born
200055  b 1 none consumerGroup:group topic:topic queueId:queue
200056  b 1 none
200151  b 2 acks
-1      b 1 none
32767   bn 1 none
2147483647 bn 1 none
"""


class Code:
    def __init__(self, line):
        number, self.target, weight, self.body, *fields = line.split()
        self.destroys = number.endswith("!")
        self.number = int(number.rstrip("!"))
        self.weight = int(weight)
        self.fields = []
        for field in fields:
            name, kind = field.split(":")
            self.fields.append((name, kind.rstrip("?"), kind.endswith("?")))


ALL = [Code(line) for line in TABLE.strip().splitlines()]
BY_NUMBER = {code.number: code for code in ALL}

# What a run may look at more closely (`--focus`): codes that come ten times as often.
FOCUS = {
    "names": {36, 34, 15, 11, 103, 104, 215, 200, 207, 10},
    "numbers": {10, 310, 36, 15, 208, 103, 222, 37},
    "load": set(),
    "delivery": {36, 10, 310, 320, 200, 215},
}

# Codes that name what may lie at a spot (`states.py`): those that change something come more often, those that end the spot, and those
# that brokers do not answer, less often.
NAMES = {"topic", "group", "pgroup", "physical", "msgid", "client"}
CHANGES = {10, 310, 11, 361, 15, 34, 35, 36, 37, 41, 42, 222, 314, 401, 200050, 200051, 200053, 200151, 31002}
SELDOM = {17, 18, 200, 207, 215, 216, 217, 225, 13, 39, 40, 220, 221, 326, 353, 354, 513, 906}
STRIKES = [code for code in ALL if ("b" in code.target or code.number in (105, 216, 217))
           and (NAMES & {kind for _, kind, _ in code.fields} or code.body in bodies.NAMES)]


def strike(dice):
    weights = [4 if code.number in CHANGES else 0.3 if code.number in SELDOM else 1 for code in STRIKES]
    return dice.choices(STRIKES, weights)[0]


def draw(dice, focus):
    weights = [code.weight * (10 if code.number in FOCUS.get(focus, ()) else 1) for code in ALL]
    return dice.choices(ALL, weights)[0]
