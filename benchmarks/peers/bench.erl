%% Erlang's side: gen_server calls and casts, spawned processes, one event to 100 processes, dets with a sync for each write.
%% Prints "name value" lines; the repetitions are one line each, after a round that warms up.
-module(bench).
-export([main/1, init/1, handle_call/3, handle_cast/2, handle_info/2]).
-behaviour(gen_server).

main([What, Reps, N, Dir]) ->
    R = list_to_integer(Reps),
    Count = list_to_integer(N),
    run(What, R, Count, Dir),
    halt(0).

init(State) -> {ok, State}.
handle_call({add, By}, _From, N) -> {reply, N + By, N + By}.
handle_cast({add, By}, N) -> {noreply, N + By}.
handle_info(_, N) -> {noreply, N}.

%% A figure for each repetition; the first round counts for nothing.
repeat(Reps, Ops, Once) ->
    Once(),
    lists:foreach(fun(_) ->
        erlang:garbage_collect(),
        {Micros, _} = timer:tc(Once),
        io:format("value ~p~n", [Ops * 1000000 / Micros])
    end, lists:seq(1, Reps)).

loop(0, _) -> ok;
loop(N, F) -> F(), loop(N - 1, F).

%% Each caller calls in a process of its own.
callers(Each, Calls) ->
    Parent = self(),
    Pids = [spawn_link(fun() -> loop(Each, Call), Parent ! {done, self()} end) || Call <- Calls],
    [receive {done, Pid} -> ok end || Pid <- Pids],
    ok.

run("ask", R, N, _) ->
    {ok, Pid} = gen_server:start_link(?MODULE, 0, []),
    repeat(R, N, fun() -> loop(N, fun() -> gen_server:call(Pid, {add, 1}) end) end);
run("ask_100", R, N, _) ->
    Pids = [element(2, gen_server:start_link(?MODULE, 0, [])) || _ <- lists:seq(1, 100)],
    repeat(R, N, fun() -> callers(N div 100, [fun() -> gen_server:call(P, {add, 1}) end || P <- Pids]) end);
run("one_way", R, N, _) ->
    {ok, Pid} = gen_server:start_link(?MODULE, 0, []),
    repeat(R, N, fun() ->
        loop(N, fun() -> gen_server:cast(Pid, {add, 1}) end),
        gen_server:call(Pid, {add, 0}, infinity)
    end);
run("memory", _, N, _) ->
    erlang:garbage_collect(),
    Before = erlang:memory(total),
    {Micros, Pids} = timer:tc(fun() ->
        [element(2, gen_server:start_link(?MODULE, {integer_to_binary(I), I, I / 7}, [])) || I <- lists:seq(1, N)]
    end),
    erlang:garbage_collect(),
    io:format("value ~p~nspawn ~p~n", [(erlang:memory(total) - Before) / N, length(Pids) * 1000000 / Micros]);
run("fan_out_100", R, N, _) ->
    Parent = self(),
    Pids = [spawn_link(fun() -> listen(Parent, 0) end) || _ <- lists:seq(1, 100)],
    repeat(R, N * 100, fun() ->
        loop(N, fun() -> [P ! happened || P <- Pids] end),
        [P ! flush || P <- Pids],
        [receive {flushed, P} -> ok end || P <- Pids]
    end);
run("dets_" ++ Callers, R, N, Dir) ->
    {ok, T} = dets:open_file(bench, [{file, filename:join(Dir, "bench.dets")}]),
    C = list_to_integer(Callers),
    Server = spawn_link(fun() -> group(T) end),
    repeat(R, N, fun() ->
        callers(N div C, [begin
            K = I,
            fun() ->
                Ref = make_ref(),
                Server ! {write, self(), Ref, K},
                receive Ref -> ok end
            end
        end || I <- lists:seq(1, C)])
    end),
    dets:close(T).

listen(Parent, N) ->
    receive
        happened -> listen(Parent, N + 1);
        flush -> Parent ! {flushed, self()}, listen(Parent, N)
    end.

%% One process writes for all who wait, then syncs once.
group(T) ->
    receive {write, From, Ref, K} -> group(T, [{From, Ref, K}]) end.
group(T, Waiting) ->
    receive
        {write, From, Ref, K} -> group(T, [{From, Ref, K} | Waiting])
    after 0 ->
        [begin
            V = case dets:lookup(T, K) of [{K, Old}] -> Old; [] -> 0 end,
            ok = dets:insert(T, {K, V + 1})
        end || {_, _, K} <- Waiting],
        ok = dets:sync(T),
        [From ! Ref || {From, Ref, _} <- Waiting],
        group(T)
    end.
